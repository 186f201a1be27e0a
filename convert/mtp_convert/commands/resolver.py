"""Matches the tensors of a checkpoint with the rules of its family.

Owns names, shapes and what is left over. Knows nothing of any one family, nor of GGUF's formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint import quantization
from mtp_convert.checkpoint.folder import Checkpoint
from mtp_convert.checkpoint.quantization import SCALES, Quantization
from mtp_convert.checkpoint.shard import TensorEntry
from mtp_convert.families.rules import Config, Dims, Family, Rule, reading
from mtp_convert.tensors.fp8 import CODES, Fp8, scaled
from mtp_convert.tensors.sources import INTEGERS, Read, ReadIntegers, Source

Named = tuple[str, Source]

_DERIVED = ("rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
_FLOATS = ("F32", "F16", "BF16", "F64")
_OUTPUT = "lm_head.weight"
_COMPARED_BYTES = 1 << 20


@dataclass
class Resolver:
    """Matches the tensors of a checkpoint with the rules of its family."""

    checkpoint: Checkpoint
    family: Family
    config: Config
    names: dict[str, str] = field(init=False)  # name as the family knows it -> name in the file
    quantization: Quantization = field(init=False)
    used: set[str] = field(default_factory=set)
    unused_scales: list[str] = field(default_factory=list)  # of activations and caches

    def __post_init__(self) -> None:
        self.names = {self.family.rename(name): name for name in self.checkpoint.tensors}
        self.quantization = quantization.quantization_of(self.config.values, self.checkpoint.folder)
        self.n_layers = self.config.count("num_hidden_layers")
        if not 1 <= self.n_layers <= 1024:
            raise MtpError(f"{self.config.where}: num_hidden_layers: {self.n_layers}")

    def source(self, name: str) -> Source:
        """A tensor of the checkpoint, dequantized when it is FP8."""
        entry = self.entry(name)
        if entry.dtype in _FLOATS:
            return Read(entry)
        if entry.dtype not in CODES:
            method = quantization.packed(name, self.names) or ""
            refusal = f"{entry.name}: cannot convert number format {entry.dtype}"
            if method or self.quantization.method:
                refusal = self.quantization.refusal(entry.name, method)
            raise MtpError(f"{entry.file}: {refusal}")
        scale = next((found for found in _scale_names(name) if found in self.names), None)
        if scale is None:
            raise MtpError(f"{entry.file}: {entry.name}: FP8 without {name}_scale_inv beside it")
        return scaled(entry, self.entry(scale), self.quantization.blocks)

    def integers(self, name: str) -> Source:
        """A tensor of ids."""
        entry = self.entry(name)
        if entry.dtype not in INTEGERS:
            raise MtpError(f"{entry.file}: {entry.name}: expected integers, found {entry.dtype}")
        return ReadIntegers(entry)

    def entry(self, name: str) -> TensorEntry:
        self.used.add(name)
        return self.checkpoint.tensors[self.names[name]]

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
            missing = [n for n in self.first_experts(names) if n not in self.names]
            if not missing:
                done.add(to)
                yield to, self.made(rule, to, names, dims)
                continue
            self.check_packed(missing)
            if not rule.maybe and not self.has_alternative(rule, rules, kinds, prefix, i):
                raise MtpError(
                    f"{self.checkpoint.folder}: {missing[0]} is missing "
                    f"({self.family.name} needs it for {to})"
                )

    def first_experts(self, names: list[str]) -> list[str]:
        return [name.replace("{e}", "0") for name in names]

    def check_packed(self, missing: list[str]) -> None:
        """A weight that is there in a form that cannot be read is not one that is not there."""
        for name in missing:
            method = quantization.packed(name, self.names)
            if method is not None:
                folder = self.checkpoint.folder
                raise MtpError(f"{folder}: {self.quantization.refusal(name, method)}")

    def has_alternative(
        self, rule: Rule, rules: tuple[Rule, ...], kinds: frozenset[str], prefix: str, i: int
    ) -> bool:
        """Whether another rule makes the same tensor, or the fused one it is part of."""
        for other in rules:
            if other is rule or other.to != rule.to or (other.when and other.when not in kinds):
                continue
            names = [p.replace("{L}", prefix).replace("{i}", str(i)) for p in other.patterns]
            if all(name in self.names for name in self.first_experts(names)):
                return True
        return False

    def made(self, rule: Rule, to: str, names: list[str], dims: Dims) -> Source:
        sources, file = [], self.checkpoint.folder
        for name in names:
            for expert in range(dims["experts"]) if "{e}" in name else (0,):
                one = name.replace("{e}", str(expert))
                if one not in self.names:
                    raise MtpError(f"{self.checkpoint.folder}: {one} is missing (for {to})")
                sources.append(self.integers(one) if rule.whole else self.source(one))
                file = self.entry(one).file
        where = f"{file}: {to} from {names[0]}"
        spare = [s for s in sources if isinstance(s, Fp8) and s.n_spare and not rule.ranked]
        if spare:
            n_rows, block = spare[0].scale.shape[0], spare[0].block
            raise MtpError(
                f"{where}: {n_rows} rows of scales for {spare[0].shape} in blocks of {block}"
            )
        with reading(self.config):
            try:
                source = rule.how(sources, dims)
            except MtpError as error:
                raise MtpError(f"{where}: {error}") from error
        expected = tuple(dims[name] for name in rule.shape.split(","))
        if source.shape != expected:
            raise MtpError(f"{where}: expected {expected} by config.json, found {source.shape}")
        return source

    def target(self) -> Iterator[Named]:
        yield from self.shared()
        with reading(self.config):
            extra = self.family.extra(self.config)
        yield from extra.items()
        for i in range(self.n_layers):
            yield from self.apply(self.family.layer_rules, i, self.family.layer_prefix.format(i=i))

    def norms(self, only_present: bool = False) -> Iterator[Named]:
        """The target's small tensors that a fingerprint is made of; all, or those there are."""
        scopes = [(self.family.rules, 0, "")]
        layers = ((i, self.family.layer_prefix.format(i=i)) for i in range(self.n_layers))
        scopes += [(self.family.layer_rules, i, prefix) for i, prefix in layers]
        for rules, i, prefix in scopes:
            chosen = [
                rule
                for rule in rules
                if head_file.is_fingerprinted(rule.to.format(i=i), self.n_layers)
            ]
            if only_present:
                chosen = [rule for rule in chosen if self.is_present(rule, prefix)]
            yield from self.apply(tuple(chosen), i, prefix)

    def is_present(self, rule: Rule, prefix: str) -> bool:
        return all(pattern.replace("{L}", prefix) in self.names for pattern in rule.patterns)

    def shared(self) -> Iterator[Named]:
        """Embedding, final norm and output: heads need them too."""
        yield from self.apply(self.family.rules, 0, "")

    def shared_with_heads(self) -> Iterator[Named]:
        """The same for a file of heads, with what these have of their own."""
        own = self.family.heads.own if self.family.heads else ()
        others = {rule.to for rule in own}
        yield from self.apply(tuple(r for r in self.family.rules if r.to not in others), 0, "")
        if self.family.heads and own:
            yield from self.apply(own, 0, self.head_prefix(self.family.heads.prefix, 0))

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
            if quantization.is_unused_scale(name):
                self.unused_scales.append(name)
                continue
            if not self.is_of_head(name, n_heads):
                entry = self.checkpoint.tensors[original]
                raise MtpError(
                    f"{entry.file}: {original}: no tensor that {self.family.name} is known to have"
                )

    def left_out(self) -> Iterator[str]:
        """What people should know of tensors that have no place in a GGUF."""
        if self.unused_scales:
            yield (
                f"{len(self.unused_scales)} scales of activations or of a cache of keys and values "
                f"left out, {self.unused_scales[0]} the first: llama.cpp computes with formats of "
                "its own there"
            )

    def output_notes(self) -> Iterator[str]:
        """Where config.json and the shards disagree about a matrix of the output's own."""
        is_tied = self.config.flag("tie_word_embeddings")
        own = self.names.get(_OUTPUT)
        if own is None and is_tied is False:
            yield (
                f"config.json has an output of its own, and no shard {_OUTPUT}: the embedding is "
                "taken"
            )
        embedding = next(r.patterns[0] for r in self.family.rules if r.to == "token_embd.weight")
        if own is None or not is_tied or self._is_begun_alike(embedding, _OUTPUT):
            return
        yield (
            f"config.json ties the output to the embedding; {_OUTPUT} differs from it and is "
            "taken, as transformers 5 does (4 takes the embedding)"
        )

    def _is_begun_alike(self, one: str, other: str) -> bool:
        """Whether two matrices begin with the same bytes: in training all rows change."""
        first, second = self.entry(one), self.entry(other)
        n_bytes = min(first.n_bytes, second.n_bytes, _COMPARED_BYTES)
        is_of_a_kind = (first.dtype, first.shape) == (second.dtype, second.shape)
        return is_of_a_kind and first.read(0, n_bytes) == second.read(0, n_bytes)

    def is_ignored(self, name: str, original: str) -> bool:
        return any(part in name or part in original for part in self.family.ignored)

    def is_of_head(self, name: str, n_heads: int) -> bool:
        heads = self.family.heads
        if heads is None:
            return False
        fixed = {p for rule in heads.rules for p in rule.patterns if "{" not in p}
        prefixes = [self.head_prefix(heads.prefix, head) for head in range(n_heads)]
        return name in fixed or any(name.startswith(prefix + ".") for prefix in prefixes)


def _scale_names(name: str) -> Iterator[str]:
    """Where a weight's scales may be."""
    yield from (name + end for end in SCALES)
    if name.endswith(".weight"):
        yield name.removesuffix("weight") + "scale"
