"""The heads of a checkpoint onto an existing GGUF of the same model.

The target's tensors are copied byte for byte unless another format is asked for, and of the
checkpoint only the shards that hold head tensors are opened. Knows nothing of any one family.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFValueType

from mtp_cli.errors import MtpError
from mtp_cli.paths.gguf import check_checkpoint
from mtp_convert.checkpoint import meta
from mtp_convert.checkpoint.folder import Checkpoint, open_checkpoint, read_json
from mtp_convert.checkpoint.quantization import check_transforms
from mtp_convert.commands.build import family_metadata, usable_heads
from mtp_convert.commands.resolver import Named, Resolver
from mtp_convert.families import family_of
from mtp_convert.families.rules import Config, Family
from mtp_convert.gguf import mixes
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.model import BLOCK_COUNT, GgufModel, open_model
from mtp_convert.gguf.plan import Plan, PlannedTensor, encoded
from mtp_convert.gguf.reuse import AS_IT_IS, Taken, Wanted, as_they_are, losses
from mtp_convert.tensors import formats
from mtp_convert.tensors.sources import load

# What must agree, or the heads are for another model.
_MUST_AGREE = ("embedding_length", "attention.head_count", "attention.key_length", "expert_count")


def plan_graft(target: Path, folder: Path, wanted: Wanted = AS_IT_IS) -> Plan:
    """The plan that joins a target and a checkpoint's heads; refuses heads of another model."""
    _check_folder(folder)
    if meta.is_meta_folder(folder):
        raise MtpError(
            f"{folder}: llama.cpp has no place for independent heads in a model's file; "
            "mtp-convert convert --heads-only writes them into one to lay beside it"
        )
    model = open_model(target)
    config = Config(read_json(folder / "config.json"), str(folder / "config.json"))
    family = family_of(config)
    if family.is_beside or (family.heads and family.heads.own):
        raise MtpError(
            f"{folder}: {family.name}: runs from a file of its own; mtp-convert convert writes it, "
            "to lay beside the target"
        )
    if family.arch != model.arch:
        raise MtpError(f"{target}: architecture {model.arch}; {family.name}'s is {family.arch}")
    if model.n_heads:
        raise MtpError(f"{target}: has heads already; mtp-convert strip takes them off")
    checkpoint = open_checkpoint(folder, lambda name: _is_of_head(name, family, config))
    resolver = Resolver(checkpoint, family, config)
    check_transforms(resolver.quantization, config.where)
    n_heads, notes = usable_heads(family, config, resolver.n_heads(), "heads")
    values = family_metadata(family, config, n_heads)
    _check(model, values, resolver)
    _check_norms(model, family, config, folder, checkpoint)
    metadata = dict(model.file.pairs)
    # Per-layer arrays grow with the blocks.
    metadata |= {k: v for k, v in values.items() if v.kind == GGUFValueType.ARRAY}
    for key in (f"{family.arch}.{BLOCK_COUNT}", f"{family.arch}.nextn_predict_layers"):
        metadata[key] = values[key]
    metadata |= wanted.metadata(wanted.outtype)
    taken = as_they_are(model.file, model.file.tensors)
    heads = list(resolver.heads(n_heads))
    traits = mixes.Traits.of(model.arch, metadata)
    tensors = list(_joined(taken, heads, wanted, wanted.head or _own_format(model), traits))
    return Plan(metadata, tuple(tensors), (*notes, *losses(taken, tensors)))


def _check_folder(folder: Path) -> None:
    """MtpError where it is none; a head file, which is taken for one, has a command of its own."""
    if folder.is_file() and _is_head_file(folder):
        raise MtpError(
            f"{folder}: a head file, and graft takes a checkpoint's folder; mtp-convert pack joins "
            "a head file to its target"
        )
    check_checkpoint(folder)


def _is_head_file(path: Path) -> bool:
    try:
        return open_model(path).is_head_file
    except MtpError:
        return False


def _joined(
    target: Sequence[Taken],
    heads: Sequence[Named],
    wanted: Wanted,
    head_type: str,
    traits: mixes.Traits,
) -> Iterator[PlannedTensor]:
    """The target's tensors, copied unless a format was asked for, and the heads' encoded."""
    shapes = [(tensor.to, tensor.shape) for tensor in target]
    shapes += [(name, source.shape) for name, source in heads]
    kinds = mixes.choose(wanted.outtype, shapes, traits) if wanted.outtype else {}
    yield from (tensor.planned(kinds.get(tensor.to)) for tensor in target)
    kinds = mixes.choose(head_type, shapes, traits)
    yield from (encoded(name, source, kinds[name]) for name, source in heads)


def _own_format(model: GgufModel) -> str:
    """Heads in the target's own format where that is a plain one, else in eight bits."""
    largest = max(model.file.tensors.values(), key=lambda tensor: tensor.n_bytes)
    return "q8_0" if formats.is_quantized(largest.kind) else largest.kind.name.lower()


def _is_of_head(name: str, family: Family, config: Config) -> bool:
    """Whether a checkpoint tensor belongs to a head, by its name alone."""
    if family.heads is None:
        why = family.notes or "has no heads of its own; see pack"
        raise MtpError(f"{config.where}: {family.name}: {why}")
    known = family.rename(name)
    fixed = {p for rule in family.heads.rules for p in rule.patterns if "{" not in p}
    pattern = re.escape(family.heads.prefix).replace(r"\{h\}", r"\d+")
    match = re.match(pattern.replace(r"\{i\}", r"(?P<layer>\d+)") + r"\.", known)
    if match is None:
        return known in fixed
    layer = match.groupdict().get("layer")
    return layer is None or int(layer) >= config.count("num_hidden_layers")


def _check(model: GgufModel, values: Mapping[str, Pair], resolver: Resolver) -> None:
    where = resolver.config.where
    if model.n_layers != resolver.n_layers:
        raise MtpError(
            f"{where}: heads for {resolver.n_layers} layers, {model.path} has {model.n_layers}"
        )
    for name in _MUST_AGREE:
        pair, found = values.get(model.key(name)), model.file.get(model.key(name))
        wanted = found if pair is None else pair.value
        if isinstance(wanted, int) and isinstance(found, int) and wanted != found:
            raise MtpError(f"{where}: {name} {wanted}, {model.path} has {found}")
    n_vocab = resolver.config.count("vocab_size")
    if model.n_vocab != n_vocab:
        raise MtpError(f"{where}: a vocabulary of {n_vocab}, {model.path} has {model.n_vocab}")


def _check_norms(
    model: GgufModel, family: Family, config: Config, folder: Path, heads: Checkpoint
) -> None:
    """Norms of the target that happen to lie in the opened shards must be this target's."""
    opened = {entry.file.name for entry in heads.tensors.values()}
    nearby = open_checkpoint(folder, in_files=opened)
    for name, source in Resolver(nearby, family, config).norms(only_present=True):
        if name not in model.file.tensors:
            continue
        ours, theirs = load(source), model.values(name)
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-3, atol=1e-5):
            raise MtpError(f"{folder}: {name} differs from {model.path}'s: another model's heads")
