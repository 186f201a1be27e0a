"""A checkpoint and its family into a plan. Reads no tensor data, except norms for a fingerprint.

Owns choosing the part, formats and metadata; `resolver` matches tensors with rules. Knows nothing
of any one family, nor of writing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from gguf import GGUFWriter
from gguf.utility import size_label

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.card import described
from mtp_convert.checkpoint.folder import Checkpoint
from mtp_convert.checkpoint.quantization import check_transforms
from mtp_convert.commands import drafter
from mtp_convert.commands.resolver import Named, Resolver
from mtp_convert.families import family_of
from mtp_convert.families.graph import check_activation, unseen_window
from mtp_convert.families.rope import check_rope, rope_notes
from mtp_convert.families.rules import Config, Family, reading
from mtp_convert.gguf import mixes
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.independent import embedded, own_metadata
from mtp_convert.gguf.metadata import pair, pairs, typed
from mtp_convert.gguf.plan import Plan, PlannedTensor, encoded
from mtp_convert.tensors import formats
from mtp_convert.tensors.sources import load
from mtp_convert.tokenizer.vocabulary import tokenizer_metadata

Part = Literal["all", "heads", "target"]


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    target: a folder or GGUF, whose tokenizer goes into a drafter's file
    """

    part: Part = "all"
    outtype: str = "bf16"
    head_outtype: str | None = None
    pre: str | None = None
    name: str | None = None
    target: Path | None = None

    @property
    def head_type(self) -> str:
        return self.head_outtype or mixes.default_head_type(self.outtype)


def plan_checkpoint(checkpoint: Checkpoint, options: Options) -> Plan:
    """The plan that converts a checkpoint; everything is validated before it is returned."""
    config = Config(checkpoint.config, checkpoint.where)
    family = family_of(config)
    if options.target is not None and family.reads is None:
        raise MtpError(f"{config.where}: {family.name} has its own tokenizer; leave out --target")
    if family.is_beside:
        options = _of_heads_alone(family, config, options)
    resolver = Resolver(checkpoint, family, config)
    check_transforms(resolver.quantization, checkpoint.where)
    with reading(config):
        check_activation(config, family.activations)
        if family.ropes is not None:
            check_rope(config, family.ropes, family.sliding_ropes)
    found = resolver.n_heads()
    n_heads, notes = usable_heads(family, config, found, options.part)
    notes += rope_notes(config)
    if n_heads and family.heads and family.heads.kind == "independent":
        return _independent(resolver, n_heads, options, notes)
    if n_heads and family.heads and family.heads.own and options.part == "all":
        raise MtpError(
            f"{checkpoint.folder}: llama.cpp has one place for {family.heads.own[0].to}, and the "
            "head one of its own; convert the target with --no-heads, and the head beside it with "
            "--heads-only"
        )
    target = (
        list(resolver.target()) if options.part != "heads" else list(resolver.shared_with_heads())
    )
    heads = list(resolver.heads(n_heads))
    ids = drafter.vocabulary_map(resolver) if family.reads is not None else ()
    if options.part != "heads":
        resolver.check_leftovers(found)
        notes += resolver.left_out()
    if options.part != "heads" and family.reads is None:
        notes += resolver.output_notes()
    values = _within_window(family, config, family_metadata(family, config, n_heads), notes)
    tensors = [*encode_all(target, heads, options, mixes.Traits.of(family.arch, values)), *ids]
    metadata = {
        **_general(checkpoint, family, [*target, *heads], options, notes),
        **values,
        **_tokenizer(resolver, options, notes),
    }
    if metadata["tokenizer.ggml.model"].value == "no_vocab":
        metadata[f"{family.arch}.vocab_size"] = config.count("vocab_size")
        notes.append("no tokenizer in the folder: the file will know ids only")
    if options.part == "heads":
        metadata |= _pairing(resolver, metadata)
    return Plan(pairs(metadata), tuple(tensors), tuple(notes))


def _tokenizer(resolver: Resolver, options: Options, notes: list[str]) -> dict[str, Any]:
    """The checkpoint's; a drafter's is its target's."""
    family, config = resolver.family, resolver.config
    if family.reads is not None:
        return drafter.metadata_of(resolver, family.reads, options.target, options.pre, notes)
    folder, n_vocab = resolver.checkpoint.tokenizer, config.count("vocab_size")
    return tokenizer_metadata(folder, n_vocab, family, options.pre, notes)


def _of_heads_alone(family: Family, config: Config, options: Options) -> Options:
    """A checkpoint of heads and nothing else: its whole file is a file of heads."""
    if options.part == "target":
        raise MtpError(f"{config.where}: {family.name}: these are heads without a target")
    return replace(options, part="all")


def _independent(resolver: Resolver, n_heads: int, options: Options, notes: list[str]) -> Plan:
    """A file of heads that are models of one layer each."""
    family, checkpoint = resolver.family, resolver.checkpoint
    if options.part == "all":
        raise MtpError(
            f"{checkpoint.folder}: llama.cpp has no place for independent heads in a model's file; "
            "convert the target with --no-heads, and the heads beside it with --heads-only"
        )
    own = family_metadata(family, resolver.config, 1)
    traits = mixes.Traits.of(family.arch, own)
    models = [list(resolver.independent(head)) for head in range(n_heads)]
    planned = [list(encode_all((), model, options, traits)) for model in models]
    metadata = {**_general(checkpoint, family, list(chain(*models)), options, notes), **own}
    metadata = pairs({**metadata, **_pairing(resolver, metadata)})
    return Plan(metadata, tuple(embedded(own_metadata(metadata), planned)), tuple(notes))


def usable_heads(family: Family, config: Config, found: int, part: Part) -> tuple[int, list[str]]:
    """How many heads to convert, and what people should know of the others."""
    announced = config.find(*family.heads.count, default=0) if family.heads else 0
    notes: list[str] = []
    if part == "target":
        return 0, [f"{found} head(s) left out, as asked"] if found else []
    if part == "heads" and not found:
        raise MtpError(f"{config.where}: {family.name}: the checkpoint holds no MTP heads")
    if announced and not found:
        notes.append(f"config.json announces {announced} head(s), the shards hold none")
    elif found and announced != found:
        notes.append(f"{found} head(s) found; config.json announces {announced or 'none'}")
    if family.heads and family.heads.single and found > 1:
        notes.append(f"llama.cpp runs one head of {family.name}: the first of {found} is taken")
        found = 1
    return found, notes


def encode_all(
    target: Sequence[Named], heads: Sequence[Named], options: Options, traits: mixes.Traits
) -> Iterator[PlannedTensor]:
    """Choose each tensor's format, as for one file of that outtype."""
    shapes = [(name, source.shape) for name, source in (*target, *heads)]
    for tensors, outtype in ((target, options.outtype), (heads, options.head_type)):
        kinds = mixes.choose(outtype, shapes, traits)
        for name, source in tensors:
            yield encoded(name, source, kinds[name])


def family_metadata(family: Family, config: Config, n_heads: int) -> dict[str, Pair]:
    """A family's pairs, with the architecture filled in."""
    with reading(config):
        values = family.metadata(config, n_heads)
        return pairs({key.replace("{arch}", family.arch): v for key, v in values.items()})


def _within_window(
    family: Family, config: Config, values: dict[str, Pair], notes: list[str]
) -> dict[str, Pair]:
    """`values` with a context in which sliding attention that the graph lacks sees everything."""
    window = None if family.has_windows else unseen_window(config)
    if window is None:
        return values
    notes.append(
        f"sliding_window: llama.cpp has none for {family.name}: its context becomes {window} "
        "tokens, within which the model is computed as it was trained"
    )
    return {**values, f"{family.arch}.context_length": pair(window)}


def _general(
    checkpoint: Checkpoint,
    family: Family,
    tensors: Sequence[Named],
    options: Options,
    notes: list[str],
) -> dict[str, Any]:
    """general.*: the names and the model card, as llama.cpp's converter has them."""
    total, shared, experts, n_experts = parameter_counts(tensors)
    found = described(checkpoint.folder, total, notes)
    found.name = options.name or found.name or checkpoint.folder.resolve().name
    found.size_label = found.size_label or size_label(total, shared, experts, n_experts)
    sink = GGUFWriter(None, family.arch)  # never written: it names the keys
    sink.add_type("model")
    found.set_gguf_meta_model(sink)
    outtype = options.head_type if options.part == "heads" else options.outtype
    return {
        **{key: typed(value.value, value.type) for key, value in sink.kv_data[0].items()},
        **formats.file_metadata(outtype),
    }


def parameter_counts(tensors: Sequence[Named]) -> tuple[int, int, int, int]:
    """Total, shared and per-expert parameters and the number of experts, for the size label."""
    total = shared = experts = n_experts = n_stacks = 0
    for name, source in tensors:
        size = math.prod(source.shape)
        total += size
        if "_exps." in name and len(source.shape) > 2:  # not a scale for each expert
            experts += size // source.shape[-3]
            n_experts, n_stacks = n_experts + source.shape[-3], n_stacks + 1
        else:
            shared += size
    return total, shared, experts, n_experts // n_stacks if n_stacks else 0


def _pairing(resolver: Resolver, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What ties a head file to its target; the norms are small enough to read now."""
    dims, heads = resolver.family.dims(resolver.config, 0), resolver.family.heads
    norms = [(name, load(source)) for name, source in resolver.norms()]
    info = head_file.HeadInfo(
        target_name=str(metadata["general.name"].value),
        fingerprint=head_file.fingerprint(norms),
        n_embd=dims["embd"],
        n_vocab=dims["vocab"],
        hidden="last_layer" if heads and heads.kind == "independent" else "nextn",
        vocabulary=None,
    )
    return {head_file.KEY_TYPE: head_file.TYPE, **info.metadata()}
