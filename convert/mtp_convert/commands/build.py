"""A checkpoint and its family into a plan. Reads no tensor data, except norms for a fingerprint.

Owns matching names to rules, checking shapes, choosing formats and assembling metadata. Knows
nothing of any one family, nor of writing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

from gguf import GGUFWriter
from gguf.utility import size_label

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.card import described
from mtp_convert.checkpoint.folder import Checkpoint
from mtp_convert.checkpoint.shard import TensorEntry
from mtp_convert.families import family_of
from mtp_convert.families.rules import Config, Dims, Family, Rule, reading
from mtp_convert.gguf import mixes
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.independent import embedded, own_metadata
from mtp_convert.gguf.metadata import pairs, typed
from mtp_convert.gguf.plan import Plan, PlannedTensor, encoded
from mtp_convert.tensors import formats
from mtp_convert.tensors.sources import Fp8, Read, Source, load
from mtp_convert.tokenizer.vocabulary import tokenizer_metadata

Part = Literal["all", "heads", "trunk"]
Named = tuple[str, Source]

_SCALE_SUFFIXES = ("_scale_inv", "_scale")
_DERIVED = ("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
_FLOATS = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    part: Part = "all"
    outtype: str = "bf16"
    head_outtype: str | None = None
    pre: str | None = None
    name: str | None = None

    @property
    def head_type(self) -> str:
        return self.head_outtype or mixes.default_head_type(self.outtype)


@dataclass
class Resolver:
    """Matches the tensors of a checkpoint with the rules of its family."""

    checkpoint: Checkpoint
    family: Family
    config: Config
    names: dict[str, str] = field(init=False)  # name as the family knows it -> name in the file
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names = {self.family.rename(name): name for name in self.checkpoint.tensors}
        self.n_layers = self.config.count("num_hidden_layers")
        if not 1 <= self.n_layers <= 1024:
            raise MtpError(f"{self.config.where}: num_hidden_layers: {self.n_layers}")

    def source(self, name: str) -> Source:
        """A tensor of the checkpoint, dequantized when it is FP8."""
        entry = self.entry(name)
        if entry.dtype in _FLOATS:
            return Read(entry)
        if entry.dtype != "F8_E4M3":
            raise MtpError(
                f"{entry.file}: {entry.name}: cannot convert number format {entry.dtype}"
            )
        scale = next((name + s for s in _SCALE_SUFFIXES if name + s in self.names), None)
        if scale is None:
            raise MtpError(f"{entry.file}: {entry.name}: FP8 without {name}_scale_inv beside it")
        return self.scaled(entry, Read(self.entry(scale)))

    def entry(self, name: str) -> TensorEntry:
        self.used.add(name)
        return self.checkpoint.tensors[self.names[name]]

    def scaled(self, entry: TensorEntry, scale: Read) -> Source:
        """FP8 with block scales (DeepSeek's) or one scale for each row."""
        if len(entry.shape) != 2 or scale.entry.dtype not in _FLOATS or len(scale.shape) != 2:
            raise MtpError(f"{entry.file}: {entry.name}: FP8 and its scales must be matrices")
        found = self.config.find("quantization_config", default={}).get("weight_block_size")
        rows, cols = found or (1, entry.shape[1])
        if scale.shape[1] != -(-entry.shape[1] // cols) or scale.shape[0] < -(
            -entry.shape[0] // rows
        ):
            raise MtpError(
                f"{entry.file}: {scale.entry.name}: {scale.shape} scales for "
                f"{entry.shape} in blocks of {(rows, cols)}"
            )
        return Fp8(entry, scale, (rows, cols))

    def n_heads(self) -> int:
        """How many heads the tensors hold, whatever config.json announces."""
        if self.family.heads is None:
            return 0
        prefix = self.family.heads.prefix
        if "{" not in prefix:  # one head, in one place
            return int(any(name.startswith(prefix + ".") for name in self.names))
        count = 0
        while any(n.startswith(self.head_prefix(prefix, count) + ".") for n in self.names):
            count += 1
        return count

    def head_prefix(self, prefix: str, head: int) -> str:
        return prefix.format(h=head, i=self.n_layers + head)

    def apply(self, rules: tuple[Rule, ...], i: int, prefix: str) -> Iterator[Named]:
        """The rules of one layer (or of the whole): GGUF name and source of each tensor."""
        with reading(self.config):
            kinds, dims = self.family.kinds(self.config, i), self.family.dims(self.config, i)
        done: set[str] = set()
        for rule in rules:
            to = rule.to.format(i=i)
            if to in done or (rule.when and rule.when not in kinds):
                continue
            names = [p.replace("{L}", prefix).replace("{i}", str(i)) for p in rule.patterns]
            if all(name.replace("{e}", "0") in self.names for name in names):
                done.add(to)
                yield to, self.made(rule, to, names, dims)
            elif not rule.maybe and not self.has_alternative(rule, rules, kinds, prefix, i):
                missing = next(n for n in names if n.replace("{e}", "0") not in self.names)
                raise MtpError(
                    f"{self.checkpoint.folder}: {missing.replace('{e}', '0')} is missing "
                    f"({self.family.name} needs it for {to})"
                )

    def has_alternative(
        self, rule: Rule, rules: tuple[Rule, ...], kinds: frozenset[str], prefix: str, i: int
    ) -> bool:
        """Whether another rule makes the same tensor, or the fused one it is part of."""
        for other in rules:
            if other is rule or other.to != rule.to or (other.when and other.when not in kinds):
                continue
            names = [p.replace("{L}", prefix).replace("{i}", str(i)) for p in other.patterns]
            if all(name.replace("{e}", "0") in self.names for name in names):
                return True
        return False

    def made(self, rule: Rule, to: str, names: list[str], dims: Dims) -> Source:
        sources, file = [], self.checkpoint.folder
        for name in names:
            for expert in range(dims["experts"]) if "{e}" in name else (0,):
                one = name.replace("{e}", str(expert))
                if one not in self.names:
                    raise MtpError(f"{self.checkpoint.folder}: {one} is missing (for {to})")
                sources.append(self.source(one))
                file = self.entry(one).file
        where = f"{file}: {to} from {names[0]}"
        try:
            source = rule.how(sources, dims)
        except MtpError as error:
            raise MtpError(f"{where}: {error}") from error
        expected = tuple(dims[name] for name in rule.shape.split(","))
        if source.shape != expected:
            raise MtpError(f"{where}: expected {expected} by config.json, found {source.shape}")
        return source

    def trunk(self) -> Iterator[Named]:
        yield from self.shared()
        with reading(self.config):
            extra = self.family.extra(self.config)
        yield from extra.items()
        for i in range(self.n_layers):
            yield from self.apply(self.family.layer_rules, i, self.family.layer_prefix.format(i=i))

    def shared(self) -> Iterator[Named]:
        """Embedding, final norm and output: heads need them too."""
        yield from self.apply(self.family.rules, 0, "")

    def heads(self, n_heads: int) -> Iterator[Named]:
        heads = self.family.heads
        for head in range(n_heads if heads else 0):
            assert heads is not None
            prefix = self.head_prefix(heads.prefix, head)
            rules = (*self.family.layer_rules, *heads.rules)
            yield from self.apply(rules, self.n_layers + head, prefix)

    def independent(self, head: int) -> Iterator[Named]:
        """A head as a model of one layer, with what all of them share."""
        assert self.family.heads is not None
        yield from self.apply(self.family.heads.rules, 0, "")
        prefix = self.head_prefix(self.family.heads.prefix, head)
        yield from self.apply(self.family.layer_rules, 0, prefix)

    def check_leftovers(self, n_heads: int) -> None:
        """Every tensor is used, or known to be of no use: refuse rather than drop one."""
        for name, original in self.names.items():
            if name in self.used or name.endswith(_DERIVED) or self.is_ignored(name, original):
                continue
            if name.removesuffix("_inv").removesuffix("_scale") in self.used:
                continue
            if not self.is_of_head(name, n_heads):
                entry = self.checkpoint.tensors[original]
                raise MtpError(
                    f"{entry.file}: {original}: no tensor that {self.family.name} is known to have"
                )

    def is_ignored(self, name: str, original: str) -> bool:
        return any(part in name or part in original for part in self.family.ignored)

    def is_of_head(self, name: str, n_heads: int) -> bool:
        heads = self.family.heads
        if heads is None:
            return False
        fixed = {p for rule in heads.rules for p in rule.patterns if "{" not in p}
        prefixes = [self.head_prefix(heads.prefix, head) for head in range(n_heads)]
        return name in fixed or any(name.startswith(prefix + ".") for prefix in prefixes)


def plan_checkpoint(checkpoint: Checkpoint, options: Options) -> Plan:
    """The plan that converts a checkpoint; everything is validated before it is returned."""
    config = Config(checkpoint.config, checkpoint.where)
    family = family_of(config)
    if family.is_beside:
        options = _of_heads_alone(family, config, options)
    resolver = Resolver(checkpoint, family, config)
    found = resolver.n_heads()
    n_heads, notes = usable_heads(family, config, found, options.part)
    if n_heads and family.heads and family.heads.kind == "independent":
        return _independent(resolver, n_heads, options, notes)
    trunk = list(resolver.trunk()) if options.part != "heads" else list(resolver.shared())
    heads = list(resolver.heads(n_heads))
    if options.part != "heads":
        resolver.check_leftovers(found)
    values = family_metadata(family, config, n_heads)
    tensors = encode_all(trunk, heads, options, mixes.Traits.of(family.arch, values))
    metadata = {
        **_general(checkpoint, family, [*trunk, *heads], options, notes),
        **values,
        **tokenizer_metadata(
            checkpoint.tokenizer, config.count("vocab_size"), family, options.pre, notes
        ),
    }
    if metadata["tokenizer.ggml.model"] == "no_vocab":
        metadata[f"{family.arch}.vocab_size"] = config.count("vocab_size")
        notes.append("no tokenizer in the folder: the file will know ids only")
    if options.part == "heads":
        metadata |= _pairing(resolver, metadata)
    return Plan(pairs(metadata), tuple(tensors), tuple(notes))


def _of_heads_alone(family: Family, config: Config, options: Options) -> Options:
    """A checkpoint of heads and nothing else: its whole file is a file of heads."""
    if options.part == "trunk":
        raise MtpError(f"{config.where}: {family.name}: these are heads without a trunk")
    return replace(options, part="all")


def _independent(resolver: Resolver, n_heads: int, options: Options, notes: list[str]) -> Plan:
    """A file of heads that are models of one layer each."""
    family, checkpoint = resolver.family, resolver.checkpoint
    if options.part == "all":
        raise MtpError(
            f"{checkpoint.folder}: llama.cpp has no place for independent heads in a trunk's file; "
            "convert the trunk with --no-heads, and the heads beside it with --heads-only"
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
    if part == "trunk":
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
    trunk: Sequence[Named], heads: Sequence[Named], options: Options, traits: mixes.Traits
) -> Iterator[PlannedTensor]:
    """Choose each tensor's format, as for one file of that outtype."""
    shapes = [(name, source.shape) for name, source in (*trunk, *heads)]
    for tensors, outtype in ((trunk, options.outtype), (heads, options.head_type)):
        kinds = mixes.choose(outtype, shapes, traits)
        for name, source in tensors:
            yield encoded(name, source, kinds[name])


def family_metadata(family: Family, config: Config, n_heads: int) -> dict[str, Pair]:
    """A family's pairs, with the architecture filled in."""
    with reading(config):
        values = family.metadata(config, n_heads)
        return pairs({key.replace("{arch}", family.arch): v for key, v in values.items()})


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
    """What ties a head file to its trunk; the norms are small enough to read now."""
    dims, heads = resolver.family.dims(resolver.config, 0), resolver.family.heads
    norms = [
        (name, load(source))
        for name, source in resolver.trunk()
        if head_file.is_fingerprinted(name, resolver.n_layers)
    ]
    info = head_file.HeadInfo(
        trunk_name=str(metadata["general.name"].value),
        fingerprint=head_file.fingerprint(norms),
        n_embd=dims["embd"],
        n_vocab=dims["vocab"],
        hidden="last_layer" if heads and heads.kind == "independent" else "nextn",
        vocabulary=None,
    )
    return {head_file.KEY_TYPE: head_file.TYPE, **info.metadata()}
