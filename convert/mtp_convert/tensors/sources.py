"""Where a tensor's rows come from: lazy sources that compose, read a block of rows at a time.

Owns the transforms' arithmetic and its memory bound: nothing here holds more than the rows asked
for, except `Whole`, which is for small tensors. Knows nothing of names, families or GGUF.

Rows are numpy arrays (n_rows, n_cols) in their storage format: float32, float16, or uint16 that
holds BF16 bits. A tensor of any rank is the (prod(shape[:-1]), shape[-1]) matrix of its rows; one
of rank 1 is a single row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.shard import TensorEntry

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]

STORAGE: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
INTEGERS: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4")}
_LARGEST = np.iinfo(np.int32).max


class Source(Protocol):
    """shape in numpy order; dtype F32, F16, BF16 or I32; rows [begin, end) on demand."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    def rows(self, begin: int, end: int) -> Array: ...


def n_rows(source: Source) -> int:
    return math.prod(source.shape[:-1])


def to_float32(rows: Array, dtype: str) -> npt.NDArray[np.float32]:
    """Storage format to float32; exact for all three."""
    if dtype == "BF16":
        return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return rows.astype(np.float32, copy=False)


def load(source: Source) -> npt.NDArray[np.float32]:
    """The whole tensor as float32, in its shape."""
    return load_rows(source, 0, n_rows(source)).reshape(source.shape)


def load_rows(source: Source, begin: int, end: int) -> npt.NDArray[np.float32]:
    """Rows [begin, end) as float32."""
    return to_float32(source.rows(begin, end), source.dtype)


@dataclass(frozen=True)
class Read:
    """A floating-point tensor of a checkpoint, as stored (F64 is narrowed to F32)."""

    entry: TensorEntry

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape or (1,)

    @property
    def dtype(self) -> str:
        return "F32" if self.entry.dtype == "F64" else self.entry.dtype

    def rows(self, begin: int, end: int) -> Array:
        stored = STORAGE[self.entry.dtype]
        n_row_bytes = self.shape[-1] * stored.itemsize
        raw = self.entry.read(begin * n_row_bytes, (end - begin) * n_row_bytes)
        found: Array = np.frombuffer(raw, stored).reshape(end - begin, self.shape[-1])
        return found if self.entry.dtype == self.dtype else found.astype(np.float32)


@dataclass(frozen=True)
class ReadIntegers:
    """A tensor of integers, as I32; MtpError where they do not fit."""

    entry: TensorEntry
    dtype: str = field(default="I32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape or (1,)

    def rows(self, begin: int, end: int) -> Array:
        stored = INTEGERS[self.entry.dtype]
        n_row_bytes = self.shape[-1] * stored.itemsize
        raw = self.entry.read(begin * n_row_bytes, (end - begin) * n_row_bytes)
        found = np.frombuffer(raw, stored).reshape(end - begin, self.shape[-1])
        if found.size and not np.iinfo(np.int32).min <= found.min() <= found.max() <= _LARGEST:
            raise MtpError(f"{self.entry.name}: an integer of more than 32 bits")
        narrowed: Array = found.astype("<i4")
        return narrowed


@dataclass(frozen=True)
class Pick:
    """Chosen rows of a source in a chosen order: permutations, slices, regroupings."""

    source: Source
    index: Index
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def rows(self, begin: int, end: int) -> Array:
        index = self.index[begin:end]
        first, last = int(index.min()), int(index.max())
        if last - first < 2 * len(index):  # nearby rows: one read, then sort them out
            return self.source.rows(first, last + 1)[index - first]
        cuts = np.flatnonzero(np.diff(index) != 1) + 1
        runs = np.split(index, cuts)
        return np.concatenate([self.source.rows(int(r[0]), int(r[-1]) + 1) for r in runs])


@dataclass(frozen=True)
class Groups:
    """Of every `n_each` rows of a source those in [begin, end): `Pick` without a list of rows."""

    source: Source
    n_each: int
    begin: int
    end: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def rows(self, begin: int, end: int) -> Array:
        group, row = np.divmod(np.arange(begin, end), self.end - self.begin)
        index = group * self.n_each + self.begin + row
        return Pick(self.source, index, (len(index), self.shape[-1])).rows(0, len(index))


@dataclass(frozen=True)
class Columns:
    """The columns of every row in a chosen order."""

    source: Source
    index: Index

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.source.shape[:-1], len(self.index))

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def rows(self, begin: int, end: int) -> Array:
        return self.source.rows(begin, end)[:, self.index]


@dataclass(frozen=True)
class Concat:
    """Sources one below the other, as one tensor of the given shape (also: a stack)."""

    sources: Sequence[Source]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        formats = {source.dtype for source in self.sources}
        return formats.pop() if len(formats) == 1 else "F32"

    def rows(self, begin: int, end: int) -> Array:
        parts, offset, dtype = [], 0, self.dtype
        for source in self.sources:
            n = n_rows(source)
            low, high = max(begin - offset, 0), min(end - offset, n)
            if low < high:
                part = source.rows(low, high)
                parts.append(part if source.dtype == dtype else to_float32(part, source.dtype))
            offset += n
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class Beside:
    """Matrices with as many rows, one to the right of the other."""

    sources: Sequence[Source]

    @property
    def shape(self) -> tuple[int, ...]:
        return n_rows(self.sources[0]), sum(source.shape[-1] for source in self.sources)

    @property
    def dtype(self) -> str:
        return Concat(self.sources, self.shape).dtype

    def rows(self, begin: int, end: int) -> Array:
        parts, dtype = [], self.dtype
        for source in self.sources:
            part = source.rows(begin, end)
            parts.append(part if source.dtype == dtype else to_float32(part, source.dtype))
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Reshape:
    """The same rows under another shape; the last dimension stays."""

    source: Source
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def rows(self, begin: int, end: int) -> Array:
        return self.source.rows(begin, end)


@dataclass(frozen=True)
class Whole:
    """A small tensor computed in one piece, in float32, by a function of whole arrays."""

    sources: Sequence[Source]
    function: Callable[..., Array]
    shape: tuple[int, ...]
    dtype: str = field(default="F32", init=False)

    def rows(self, begin: int, end: int) -> Array:
        value = self.function(*(load(source) for source in self.sources))
        if value.shape != self.shape:
            raise MtpError(f"a transform gave {value.shape}, expected {self.shape}")
        flat = np.ascontiguousarray(value, np.float32).reshape(-1, self.shape[-1])
        return flat[begin:end]


@dataclass(frozen=True)
class Constant:
    """A small tensor made from the configuration alone (rope factors)."""

    values: npt.NDArray[np.float32]
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def rows(self, begin: int, end: int) -> Array:
        return self.values.reshape(-1, self.values.shape[-1])[begin:end]


@dataclass(frozen=True)
class TransposeSlabs:
    """(n_slabs, n_in, n_cols) -> (n_slabs, n_cols, n_in), slab by slab."""

    source: Source

    @property
    def shape(self) -> tuple[int, ...]:
        n_slabs, n_in, n_cols = self.source.shape
        return n_slabs, n_cols, n_in

    @property
    def dtype(self) -> str:
        return self.source.dtype

    def rows(self, begin: int, end: int) -> Array:
        _, n_in, n_cols = self.source.shape
        first, last = begin // n_cols, -(-end // n_cols)
        slabs = self.source.rows(first * n_in, last * n_in).reshape(last - first, n_in, n_cols)
        turned = slabs.transpose(0, 2, 1).reshape(-1, n_in)
        return turned[begin - first * n_cols : end - first * n_cols]
