"""Tensors of an existing GGUF in a new one: copied, with rows moved, or in another format.

Owns nothing but the ways to read them. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convert import formats
from convert.build import kind_for
from convert.formats import Type
from convert.gguf_file import GgufFile
from convert.plan import BLOCK_VALUES, PlannedTensor, encoded
from convert.sources import STORAGE, Array, Index

COPY_BYTES = 1 << 24


def copied(file: GgufFile, name: str, new_name: str | None = None) -> PlannedTensor:
    """A tensor byte for byte."""
    tensor = file.tensors[name]

    def blocks() -> Iterator[bytes | memoryview]:
        for begin in range(0, tensor.n_bytes, COPY_BYTES):
            yield file.read(name, begin, min(COPY_BYTES, tensor.n_bytes - begin))

    return PlannedTensor(new_name or name, tensor.shape, tensor.kind, tensor.n_bytes, blocks)


def moved_rows(file: GgufFile, name: str, index: Index) -> PlannedTensor:
    """Chosen rows of a matrix in a chosen order, byte for byte; quantized rows move whole."""
    tensor = file.tensors[name]
    n_row = formats.row_bytes(tensor.kind, tensor.shape[-1])
    step = max(1, BLOCK_VALUES // tensor.shape[-1])

    def blocks() -> Iterator[bytes | memoryview]:
        for begin in range(0, len(index), step):
            chosen = index[begin : begin + step]
            first, last = int(chosen.min()), int(chosen.max()) + 1
            raw = file.read(name, first * n_row, (last - first) * n_row)
            rows = np.frombuffer(raw, np.uint8).reshape(-1, n_row)
            yield rows[chosen - first].tobytes()

    shape = (len(index), tensor.shape[-1])
    return PlannedTensor(name, shape, tensor.kind, len(index) * n_row, blocks)


@dataclass(frozen=True)
class Decoded:
    """A GGUF tensor as a source: F32, F16 and BF16 as stored, quantized formats as float32."""

    file: GgufFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.tensors[self.name].shape

    @property
    def dtype(self) -> str:
        return "F32" if formats.is_quantized(self._kind) else self._kind.name

    @property
    def _kind(self) -> Type:
        return self.file.tensors[self.name].kind

    def rows(self, begin: int, end: int) -> Array:
        n_cols = self.shape[-1]
        n_row = formats.row_bytes(self._kind, n_cols)
        raw = self.file.read(self.name, begin * n_row, (end - begin) * n_row)
        if formats.is_quantized(self._kind):
            return formats.decode(raw, self._kind, (end - begin, n_cols))
        return np.frombuffer(raw, STORAGE[self.dtype]).reshape(end - begin, n_cols)


def reformatted(file: GgufFile, name: str, wanted: Type | None, tied: bool) -> PlannedTensor:
    """A tensor in another format, or copied where it is in that format already."""
    tensor = file.tensors[name]
    if wanted is None or not _is_matrix(tensor.kind):
        return copied(file, name)
    kind = formats.fitting(kind_for(name, tensor.shape, wanted, tied), tensor.shape[-1])
    return copied(file, name) if kind == tensor.kind else encoded(name, Decoded(file, name), kind)


def _is_matrix(kind: Type) -> bool:
    """Integer tensors (id maps) have no other format."""
    return not kind.name.startswith(("I8", "I16", "I32", "I64"))
