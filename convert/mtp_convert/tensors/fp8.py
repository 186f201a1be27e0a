"""FP8 weights and their scales: lazy sources, in every layout that is published.

Owns the tables of both formats, and telling from shapes which scale belongs to which value. Knows
nothing of configurations or names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.shard import TensorEntry
from mtp_convert.tensors.sources import STORAGE, Array, Index, Source, load_rows, to_float32

Block = tuple[int, int]
Floats = npt.NDArray[np.float32]

PUBLISHED: Block = (128, 128)  # DeepSeek's blocks, where nothing is declared
_EXPONENTS = ("F8_E8M0", "U8")  # scales that are powers of two: 2 ** (code - 127)


def _e4m3_table() -> Floats:
    """All 256 values of FP8 E4M3FN: bias 7, no infinities, 0x7f and 0xff are NaN."""
    codes = np.arange(256, dtype=np.int32)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    value = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
    value[(codes & 127) == 127] = np.nan
    return np.where(codes >= 128, -value, value).astype(np.float32)


def _e5m2_table() -> Floats:
    """FP8 E5M2: the upper byte of a float16."""
    return (np.arange(256, dtype=np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)


CODES = {"F8_E4M3": _e4m3_table(), "F8_E5M2": _e5m2_table()}


@dataclass(frozen=True)
class Scales:
    """Scales as a matrix (n_slabs * n_rows, n_cols), in whatever shape they are stored.

    turned: they are stored as (n_slabs, n_cols, n_rows)
    """

    entry: TensorEntry
    n_slabs: int
    n_rows: int
    n_cols: int
    turned: bool = False
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.n_slabs * self.n_rows, self.n_cols

    def rows(self, begin: int, end: int) -> Array:
        if not self.turned:
            found = self._values(begin * self.n_cols, end * self.n_cols)
            return found.reshape(end - begin, self.n_cols)
        each = self.n_rows * self.n_cols
        first, last = begin // self.n_rows, -(-end // self.n_rows)
        slabs = self._values(first * each, last * each).reshape(-1, self.n_cols, self.n_rows)
        turned = slabs.transpose(0, 2, 1).reshape(-1, self.n_cols)
        return turned[begin - first * self.n_rows : end - first * self.n_rows]

    def _values(self, begin: int, end: int) -> Floats:
        dtype = self.entry.dtype
        stored = np.dtype(np.uint8) if dtype in _EXPONENTS else STORAGE[dtype]
        raw = self.entry.read(begin * stored.itemsize, (end - begin) * stored.itemsize)
        found = np.frombuffer(raw, stored)
        if dtype in _EXPONENTS:
            return np.ldexp(np.float32(1), found.astype(np.int32) - 127).astype(np.float32)
        return to_float32(found, dtype)


@dataclass(frozen=True)
class Fp8:
    """FP8 matrices times their scales: each value that of its block.

    block:     rows and columns that share a scale
    n_each:    rows of one matrix; each begins a new block
    scale_row: (n_rows,) which row of `scale` belongs to each row, where that is no such rule
    n_spare:   rows of scales that the rule leaves over
    """

    entry: TensorEntry
    scale: Source
    block: Block
    n_each: int
    scale_row: Index | None = None
    n_spare: int = 0
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    def rows(self, begin: int, end: int) -> Array:
        n_cols = self.shape[-1]
        raw = np.frombuffer(self.entry.read(begin * n_cols, (end - begin) * n_cols), np.uint8)
        of_row = self._of_rows(begin, end)
        # Read anew for every block: a large model has tens of thousands of such tensors.
        first = int(of_row.min())
        scales = load_rows(self.scale, first, int(of_row.max()) + 1)[of_row - first]
        values: Array = CODES[self.entry.dtype][raw].reshape(end - begin, n_cols)
        for column in range(scales.shape[1]):
            start = column * self.block[1]
            values[:, start : start + self.block[1]] *= scales[:, column : column + 1]
        return values

    def _of_rows(self, begin: int, end: int) -> Index:
        if self.scale_row is not None:
            return self.scale_row[begin:end]
        matrix, row = np.divmod(np.arange(begin, end), self.n_each)
        found: Index = matrix * -(-self.n_each // self.block[0]) + row // self.block[0]
        return found


def scaled(entry: TensorEntry, scale: TensorEntry, declared: Iterable[Block]) -> Fp8:
    """A weight with the scales that its checkpoint keeps in `scale`; MtpError where none fit.

    One for all, one for each matrix, row or block: told by the number of scales, for the declared
    blocks first. Dimensions of one may stand anywhere, rows and columns may be exchanged.
    """
    if len(entry.shape) < 2:
        raise MtpError(f"{entry.file}: {entry.name}: FP8 of shape {entry.shape}, no matrix")
    if scale.dtype not in (*STORAGE, *_EXPONENTS):
        raise MtpError(f"{scale.file}: {scale.name}: scales in number format {scale.dtype}")
    listed, (n_rows, n_cols) = tuple(declared), entry.shape[-2:]
    n_slabs, stored = math.prod(entry.shape[:-2]), _squeezed(scale.shape)
    if not stored:
        block = n_slabs * n_rows, n_cols
        return Fp8(entry, Scales(scale, 1, 1, 1), block, n_slabs * n_rows)
    for block in _likely(entry.shape, stored, listed):
        grid = -(-n_rows // block[0]), -(-n_cols // block[1])
        for turned, shape in ((False, grid), (True, grid[::-1])):
            if stored == _squeezed((*entry.shape[:-2], *shape)):
                return Fp8(entry, Scales(scale, n_slabs, *grid, turned), block, n_rows)
    return _spare(entry, scale, listed)


def _squeezed(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _likely(
    shape: tuple[int, ...], stored: tuple[int, ...], declared: tuple[Block, ...]
) -> Iterator[Block]:
    n_rows, n_cols = shape[-2:]
    yield from declared
    yield n_rows, n_cols
    yield 1, n_cols
    if declared:
        return
    yield PUBLISHED
    if len(stored) > 1:  # blocks that come out even
        rows, columns = stored[-2:]
        if n_rows % rows == 0 and n_cols % columns == 0:
            yield n_rows // rows, n_cols // columns


def _spare(entry: TensorEntry, scale: TensorEntry, declared: tuple[Block, ...]) -> Fp8:
    """More rows of scales than rows need: the blocks of ranks that were joined."""
    for block in declared or (PUBLISHED,):
        if len(entry.shape) == len(scale.shape) == 2:
            needed, columns = (-(-n // size) for n, size in zip(entry.shape, block, strict=True))
            n_spare = scale.shape[0] - needed
            if n_spare > 0 and scale.shape[1] == columns:
                rows = Scales(scale, 1, scale.shape[0], columns)
                return Fp8(entry, rows, block, entry.shape[0], n_spare=n_spare)
    shown = ", ".join(str(block) for block in declared) or str(PUBLISHED)
    raise MtpError(
        f"{entry.file}: {scale.name}: {scale.shape} scales for {entry.shape}; expected one, one "
        f"for each row, or one for each block of {shown}"
    )
