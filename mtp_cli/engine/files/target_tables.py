"""Single rows of a target's embedding and output tables, out of its file in any of ggml's formats.

Owns where the tables lie and how ggml decodes them. Knows nothing of heads' files.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtp_cli.engine.backend.binding import ggml_base
from mtp_cli.engine.files.gguf_header import Header, TensorEntry
from mtp_cli.engine.types import Bytes, Floats, Ids
from mtp_cli.errors import MtpError

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_F32, _Q8_0 = 0, 8  # enum ggml_type
_Q8_0_BLOCK = 32, 34  # values, bytes
_N_COMPARED = 64  # rows, spread over a table
_LEAST_COSINE = 0.9  # trained output rows have 0.97 with the target's, another model's 0


class _TypeTraits(ctypes.Structure):
    """`struct ggml_type_traits`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


@dataclass(frozen=True)
class TablePlaces:
    """Where a model's embedding and output lie, the same place where they are tied."""

    embedding_path: Path
    embedding: TensorEntry
    output_path: Path
    output: TensorEntry


def table_places(shards: Sequence[Header]) -> TablePlaces | None:
    """None where the files have no such tables."""
    found = {name: (header.path, t) for header in shards for name, t in header.tensors.items()}
    if _EMBEDDING not in found:
        return None
    return TablePlaces(*found[_EMBEDDING], *found.get(_OUTPUT, found[_EMBEDDING]))


class TargetTables:
    """Both tables of a target, or of a head; `close` it.

    n_vocab, n_embd: the output's sizes
    """

    def __init__(self, places: TablePlaces) -> None:
        """MtpError where ggml cannot decode their rows."""
        self._embedding, self._output = places.embedding, places.output
        self.n_embd, self.n_vocab = (*self._output.shape, 0)[:2]
        for entry in (self._embedding, self._output):
            if entry.shape[:1] != (self.n_embd,) or len(entry.shape) != 2 or not _can_decode(entry):
                raise MtpError(f"{places.output_path}: {entry.name}: cannot be read row by row")
        self._file = places.embedding_path.open("rb", buffering=0)
        self._output_file = places.output_path.open("rb", buffering=0)

    def embedding(self, ids: Ids) -> Floats:
        """(n, n_embd) float32; OSError where they cannot be read any more."""
        return _rows(self._file, self._embedding, ids)

    def output(self, ids: Ids) -> Floats:
        """(n, n_embd) float32; OSError where they cannot be read any more."""
        return _rows(self._output_file, self._output, ids)

    def close(self) -> None:
        self._file.close()
        self._output_file.close()


def compared(n: int) -> Ids:
    """Which of n rows are compared to know whether a target's stand for a head's."""
    return np.linspace(0, n - 1, _N_COMPARED).astype(np.int32)


def stands_for(theirs: Floats, own: Floats) -> bool:
    """Whether rows of a target may stand for a head's own of the same ids: (n, n_embd) each.

    Heads have their target's tables, or trained ones that still point alike.
    """
    lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(own, axis=1)
    cosines = (theirs * own).sum(1) / np.maximum(lengths, 1e-9)
    return bool(np.median(cosines) >= _LEAST_COSINE)


def to_q8_0(rows: Floats) -> Bytes:
    """(n, n_embd) float32 -> (n, bytes of a row in Q8_0)."""
    n_rows, n_values = rows.shape
    given = np.ascontiguousarray(rows, np.float32)
    size, block_bytes = _Q8_0_BLOCK
    out = np.empty((n_rows, n_values // size * block_bytes), np.uint8)
    _ggml().ggml_quantize_chunk(
        _Q8_0, given.ctypes.data, out.ctypes.data, 0, n_rows, n_values, None
    )
    return out


@functools.cache
def _ggml() -> ctypes.CDLL:
    library = ggml_base()
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    address, count = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, address, address, count, count, count, address)
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def _traits(entry: TensorEntry) -> _TypeTraits:
    found: _TypeTraits = _ggml().ggml_get_type_traits(entry.ggml_type).contents
    return found


def _can_decode(entry: TensorEntry) -> bool:
    if entry.ggml_type == _F32:
        return True
    traits, n_values = _traits(entry), entry.shape[0]
    is_whole = traits.block_size > 0 and n_values % traits.block_size == 0
    return bool(traits.to_float) and is_whole


def _rows(file: Any, entry: TensorEntry, ids: Ids) -> Floats:
    n_values, n_rows = entry.shape
    n_bytes = entry.n_bytes // n_rows
    raw = bytearray()
    for row in ids.tolist():
        file.seek(entry.offset + row * n_bytes)
        raw += file.read(n_bytes)
    if len(raw) < n_bytes * len(ids):
        raise OSError(f"{file.name} has become shorter")
    packed = np.frombuffer(raw, np.uint8)
    if entry.ggml_type == _F32:
        return packed.view(np.float32).reshape(len(ids), n_values)
    out = np.empty((len(ids), n_values), np.float32)
    to_float = _TO_FLOAT(_traits(entry).to_float)
    to_float(packed.ctypes.data, out.ctypes.data, out.size)
    return out
