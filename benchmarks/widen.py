"""Zero-pads a target and its heads into a wider model that computes the same function.

Owns the plans of the widened files. Knows nothing of measuring.

Every matrix gets zero rows and columns, so the added channels, attention heads and feed-forward
units carry zeros through the whole model. Only the RMS norms see the width: over `hidden` times
as many channels the mean square is that much smaller, so epsilon is divided by `hidden` and each
norm's weights by its square root. Attention heads keep their width and thereby their rotary
angles and their scale; more of them are added, key/value heads alike, which keeps each head with
its keys. A block of zeros quantizes to zeros, so quantized values do not change either.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtp_cli.errors import MtpError
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.model import GgufModel
from mtp_convert.gguf.plan import Plan, PlannedTensor, encoded
from mtp_convert.gguf.reuse import Decoded
from mtp_convert.tensors import formats
from mtp_convert.tensors.kinds import Kind, row_bytes
from mtp_convert.tensors.sources import Source, load_rows

EPSILON = "attention.layer_norm_rms_epsilon"
# What rows and columns of a matrix count: hidden channels, query and key/value heads' channels,
# feed-forward units; a dot for rows that stay (ids), a star for as many hidden rows as there are.
_MATRICES = {
    "token_embd": (".", "h"), "output": (".", "h"), "attn_q": ("q", "h"), "attn_k": ("k", "h"),
    "attn_v": ("k", "h"), "attn_qkv": ("qkk", "h"), "attn_output": ("h", "q"),
    "ffn_gate": ("f", "h"), "ffn_up": ("f", "h"), "ffn_down": ("h", "f"), "eh_proj": ("h", "hh"),
    "fuse": ("h", "*"),
}  # fmt: skip
_NORMS = (
    "output_norm", "attn_norm", "ffn_norm", "enorm", "hnorm", "shared_head_norm", "fuse_norm",
    "final_norm",
)  # fmt: skip
_BIASES = {"attn_q": "q", "attn_k": "k", "attn_v": "k"}
_ARCHITECTURES = ("llama", "qwen2")


@dataclass(frozen=True)
class Scale:
    """How many times as wide: the hidden row, and everything else."""

    hidden: int
    others: int = 1


@dataclass(frozen=True)
class Part:
    """A run of rows or columns: where it lay, how many, and where it goes."""

    start: int
    count: int
    to: int


@dataclass(frozen=True)
class Widths:
    """The widths of a dense model, by what counts them in `_MATRICES`."""

    h: int
    q: int
    k: int
    f: int

    @classmethod
    def of(cls, model: GgufModel) -> Widths:
        n_head, n_head_kv = (_count(model, f"attention.head_count{s}") for s in ("", "_kv"))
        width = head_width(model)
        return cls(model.n_embd, n_head * width, n_head_kv * width, _count(model, _FF))

    def times(self, scale: Scale) -> Widths:
        others = {name: getattr(self, name) * scale.others for name in "qkf"}
        return dataclasses.replace(self, h=self.h * scale.hidden, **others)


_FF = "feed_forward_length"


def _count(model: GgufModel, name: str) -> int:
    """A number of the model; where it has one for each layer, they must be equal."""
    found = np.unique(np.atleast_1d(model.file.get(model.key(name), 0)))
    if len(found) != 1 or found[0] <= 0:
        raise MtpError(f"{model.path}: {name}: expected one number for all layers, found {found}")
    return int(found[0])


def head_width(model: GgufModel) -> int:
    n_head = _count(model, "attention.head_count")
    return int(model.file.get(model.key("attention.key_length"), model.n_embd // n_head))


@dataclass(frozen=True)
class Padded:
    """A tensor among zeros, times `factor`, as a source of float32 rows."""

    source: Source
    rows_: tuple[Part, ...]
    columns: tuple[Part, ...]
    shape: tuple[int, ...]
    factor: float = 1.0
    dtype: str = "F32"

    def rows(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        found = np.zeros((end - begin, self.shape[-1]), np.float32)
        for part in self.rows_:
            first, last = max(begin, part.to), min(end, part.to + part.count)
            if first < last:
                old = part.start - part.to
                values = load_rows(self.source, first + old, last + old) * np.float32(self.factor)
                for column in self.columns:
                    here = slice(column.to, column.to + column.count)
                    there = slice(column.start, column.start + column.count)
                    found[first - begin : last - begin, here] = values[:, there]
        return found


@dataclass(frozen=True)
class _Run:
    """Some rows of a padded tensor, one after another, as a source of its own."""

    padded: Padded
    first: int
    count: int
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, int]:
        return self.count, self.padded.shape[-1]

    def rows(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        return self.padded.rows(self.first + begin, self.first + end)


_ZEROS = bytes(1 << 22)


def _planned(name: str, padded: Padded, kind: Kind) -> PlannedTensor:
    """Rows of zeros alone, most of a large copy, are zero bytes in every format: not encoded."""
    whole = encoded(name, padded, kind)
    if len(padded.shape) == 1:
        return whole
    n_bytes = row_bytes(whole.kind, padded.shape[-1])

    def blocks() -> Iterator[bytes | memoryview]:
        at = 0
        for part in padded.rows_:
            yield from _zeros((part.to - at) * n_bytes)
            yield from encoded(name, _Run(padded, part.to, part.count), whole.kind).blocks()
            at = part.to + part.count
        yield from _zeros((padded.shape[0] - at) * n_bytes)

    return dataclasses.replace(whole, blocks=blocks)


def _zeros(n_bytes: int) -> Iterator[memoryview]:
    for begin in range(0, n_bytes, len(_ZEROS)):
        yield memoryview(_ZEROS)[: n_bytes - begin]


def write_sparse(plan: Plan, out: Path) -> None:
    """Write a plan with holes for its zeros: a model of 14B takes seconds, and little of the disk.

    Neither kept for long nor read back: for files that end with the benchmark.
    """
    header = plan.header()
    with out.open("wb") as file:
        file.write(header)
        for tensor, offset in zip(plan.tensors, plan.offsets(), strict=False):
            file.seek(len(header) + offset)
            for block in tensor.blocks():
                if isinstance(block, memoryview) and block.obj is _ZEROS:
                    file.seek(len(block), os.SEEK_CUR)
                else:
                    file.write(block)
        file.truncate(plan.n_bytes)


def _parts(kinds: str, old: Widths, new: Widths) -> tuple[tuple[Part, ...], int]:
    """The runs of one dimension, and its new size."""
    parts, start, to = [], 0, 0
    for kind in kinds:
        parts.append(Part(start, getattr(old, kind), to))
        start += getattr(old, kind)
        to += getattr(new, kind)
    return tuple(parts), to


def _padded(model: GgufModel, name: str, scale: Scale) -> Padded:
    source = Decoded(model.file, name)
    old = Widths.of(model)
    new = old.times(scale)
    *_, part, kind = name.split(".")
    n_hidden_rows = source.shape[-1] // old.h
    if part in _NORMS:
        columns, n = _parts("h" * n_hidden_rows, old, new)
        return Padded(source, (Part(0, 1, 0),), columns, (n,), 1 / math.sqrt(scale.hidden))
    if kind == "bias" and part in _BIASES:
        columns, n = _parts(_BIASES[part], old, new)
        return Padded(source, (Part(0, 1, 0),), columns, (n,))
    if kind != "weight" or part not in _MATRICES:
        raise MtpError(f"{model.path}: {name}: not a tensor of a dense Llama, cannot be widened")
    row_kinds, column_kinds = _MATRICES[part]
    n_rows, n_columns = source.shape
    rows, n = _parts(row_kinds, old, new) if row_kinds != "." else ((Part(0, n_rows, 0),), n_rows)
    columns, m = _parts(column_kinds.replace("*", "h" * n_hidden_rows), old, new)
    if rows[-1].start + rows[-1].count != n_rows or columns[-1].start + columns[-1].count != (
        n_columns
    ):
        raise MtpError(f"{model.path}: {name}: shape {source.shape} does not fit the metadata")
    return Padded(source, rows, columns, (n, m))


def _metadata(model: GgufModel, scale: Scale) -> dict[str, Pair]:
    new = Widths.of(model).times(scale)
    width = head_width(model)
    n_kv = model.file.get(model.key("attention.head_count_kv"), 0)
    many_kv = n_kv * scale.others
    name = f"{model.file.get('general.name', 'model')} scaled to width {new.h} (zero-padded)"
    changed: dict[str, object] = {
        "embedding_length": new.h,
        _FF: new.f,
        "attention.head_count": new.q // width,
        "attention.head_count_kv": many_kv.tolist() if isinstance(n_kv, np.ndarray) else many_kv,
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": width,
        EPSILON: float(model.file.get(model.key(EPSILON))) / scale.hidden,
    }
    own = {model.key(key): pair(value) for key, value in changed.items()}
    return {**model.file.pairs, "general.name": pair(name), **own}


def plan_target(target: GgufModel, scale: Scale, outtype: str) -> Plan:
    """A dense Llama or Qwen2 target, wider; outtype: the format of its matrices."""
    if target.arch not in _ARCHITECTURES:
        known = " and ".join(_ARCHITECTURES)
        raise MtpError(f"{target.path}: architecture {target.arch}; only {known} can be widened")
    if target.arch == "qwen2" and scale.hidden != scale.others:
        # llama.cpp's graph of it takes no queries that are wider or narrower than the hidden row.
        raise MtpError(f"{target.path}: qwen2 is widened as a whole: hidden row and others alike")
    tensors = []
    for name in target.file.tensors:
        source = _padded(target, name, scale)
        kind = formats.outtype(outtype) if len(source.shape) > 1 else Kind.F32
        tensors.append(_planned(name, source, kind))
    file_type = {key: pair(value) for key, value in formats.file_metadata(outtype).items()}
    return Plan(_metadata(target, scale) | file_type, tuple(tensors))


def plan_heads(heads: GgufModel, widened: GgufModel, scale: Scale) -> Plan:
    """A head file for the target in `widened`, in the formats it had."""
    info = dataclasses.replace(
        heads.info(), fingerprint=widened.fingerprint(), n_embd=widened.n_embd
    )
    if info.hidden not in ("pre_norm", "layers"):
        raise MtpError(f"{heads.path}: {info.hidden} rows would lose their use; pre_norm ones and "
                       "those of layers do not")  # fmt: skip
    tensors = [_same_format(heads, name, scale) for name in heads.file.tensors]
    own = {key: pair(value) for key, value in info.metadata().items()}
    return Plan(_metadata(heads, scale) | own, tuple(tensors))


def _same_format(heads: GgufModel, name: str, scale: Scale) -> PlannedTensor:
    return _planned(name, _padded(heads, name, scale), heads.file.tensors[name].kind)
