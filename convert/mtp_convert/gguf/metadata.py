"""Metadata values into GGUF pairs, and the header's bytes. Knows nothing of models.

The GGUF type follows from the Python type: int is uint32, float is float32, bool is bool, str is
string, a list is an array of int32, float32, bool or string; a numpy array keeps its own type.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from gguf import GGUFValueType

from mtp_cli.paths.gguf import MAGIC
from mtp_convert.gguf.header import VERSION, Pair
from mtp_convert.tensors.kinds import Kind

KEY_WRITER = "mtp.written_by"  # of a whole model: which command may write it again
V = GGUFValueType
_ARRAYS = {
    "uint8": V.UINT8, "int8": V.INT8, "uint16": V.UINT16, "int16": V.INT16, "uint32": V.UINT32,
    "int32": V.INT32, "float32": V.FLOAT32, "bool": V.BOOL, "uint64": V.UINT64,
    "int64": V.INT64, "float64": V.FLOAT64,
}  # fmt: skip


def pair(value: Any) -> Pair:
    """Encode one Python value as the GGUF pair its type stands for."""
    if isinstance(value, Pair):
        return value
    if isinstance(value, bool):
        return Pair(V.BOOL, struct.pack("<B", value))
    if isinstance(value, int):
        return Pair(V.UINT32, struct.pack("<I", value))
    if isinstance(value, float):
        return Pair(V.FLOAT32, struct.pack("<f", value))
    if isinstance(value, str):
        return Pair(V.STRING, _string(value))
    return Pair(V.ARRAY, _array(value))


_PACKED = {V.UINT32: "<I", V.INT32: "<i", V.FLOAT32: "<f", V.BOOL: "<B"}


def typed(value: Any, kind: GGUFValueType) -> Pair:
    """A value as a pair of the type that its key has, whatever Python's is."""
    return Pair(kind, struct.pack(_PACKED[kind], value)) if kind in _PACKED else pair(value)


def pairs(values: Mapping[str, Any]) -> dict[str, Pair]:
    return {key: pair(value) for key, value in values.items() if value is not None}


def _string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else _utf8(text)
    return struct.pack("<Q", len(raw)) + raw


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # the bytes of a file's name come back
    except UnicodeEncodeError:  # JSON can spell halves of characters
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _array(values: Any) -> bytes:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"expected a list of values, found one of shape {values.shape}")
        head = struct.pack("<IQ", _ARRAYS[values.dtype.name], len(values))
        return head + np.ascontiguousarray(values).tobytes()
    if isinstance(values[0], str | bytes):
        return struct.pack("<IQ", V.STRING, len(values)) + b"".join(map(_string, values))
    if isinstance(values[0], bool):
        return _array(np.array(values, np.bool_))
    if isinstance(values[0], int):
        return _array(np.array(values, np.int32))
    with np.errstate(over="raise"):
        return _array(np.array(values, np.float32))


def encode_header(
    metadata: Mapping[str, Pair],
    tensors: Iterable[tuple[str, Sequence[int], Kind, int]],
    alignment: int,
) -> bytes:
    """Everything before the data: tensors as (name, numpy shape, format, relative offset)."""
    described = list(tensors)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(described), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), struct.pack("<I", value.kind), value.payload]
    for name, shape, kind, offset in described:
        parts += [_string(name), struct.pack("<I", len(shape))]
        parts += [struct.pack(f"<{len(shape)}Q", *reversed(shape))]
        parts += [struct.pack("<IQ", kind, offset)]
    header = b"".join(parts)
    return header + bytes(-len(header) % alignment)
