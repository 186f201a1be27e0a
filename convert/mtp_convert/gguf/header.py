"""The header of a GGUF file: read and validated, or encoded. Bounded, and exact to the byte.

Owns the layout of GGUF version 3 (and 2, read only): metadata pairs, tensor descriptions,
alignment. Metadata values keep their encoded bytes, so that a copied pair is the same pair.
gguf-py's reader is not used here: it maps the file, makes a numpy object of every string of a
vocabulary, and takes malformed input for granted. Knows nothing of models.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGUFValueType

from mtp_cli.errors import MtpError
from mtp_cli.paths.gguf import MAGIC, check_gguf
from mtp_convert.files import read_range
from mtp_convert.tensors.kinds import Kind, fits, kind_of, row_bytes

VERSION = 3
ALIGNMENT = 32
KEY_ALIGNMENT = "general.alignment"
MAX_ENTRIES = 1 << 20
MAX_HEADER_BYTES = 1 << 30
MAX_STRING_BYTES = 1 << 26
MAX_DIMENSIONS = 4
MAX_COUNT = (1 << 31) - 1  # of layers, heads, ids: what int32, ggml's type for them, holds

V = GGUFValueType
_SCALARS = {
    V.UINT8: "<u1", V.INT8: "<i1", V.UINT16: "<u2", V.INT16: "<i2", V.UINT32: "<u4",
    V.INT32: "<i4", V.FLOAT32: "<f4", V.BOOL: "<u1", V.UINT64: "<u8", V.INT64: "<i8",
    V.FLOAT64: "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One metadata value as encoded: type code and payload, without the key."""

    kind: GGUFValueType
    payload: bytes

    @property
    def value(self) -> Any:
        """As Python: int, float, bool, str, numpy array, or list of str."""
        if self.kind == V.STRING:
            return self.payload[8:].decode("utf-8", "replace")
        if self.kind == V.ARRAY:
            return _array(self.payload)
        found = np.frombuffer(self.payload, _SCALARS[self.kind])[0].item()
        return bool(found) if self.kind == V.BOOL else found

    def __len__(self) -> int:
        """How many elements an array has."""
        return int(struct.unpack_from("<Q", self.payload, 4)[0]) if self.kind == V.ARRAY else 1


def _array(payload: bytes) -> Any:
    kind, count = struct.unpack_from("<IQ", payload)
    if V(kind) != V.STRING:
        found = np.frombuffer(payload, _SCALARS[V(kind)], count, 12)
        return found.astype(bool) if V(kind) == V.BOOL else found
    strings, position = [], 12
    for _ in range(count):
        (n,) = struct.unpack_from("<Q", payload, position)
        strings.append(payload[position + 8 : position + 8 + n].decode("utf-8", "replace"))
        position += 8 + n
    return strings


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: shape in numpy order (GGUF's reversed); its bytes start at `offset` of `file`."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    offset: int
    n_bytes: int
    file: Path


@dataclass(frozen=True)
class GgufFile:
    path: Path
    pairs: Mapping[str, Pair]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    @property
    def name(self) -> str | None:
        """The model's name: text, or whatever else a converter put there that reads as one."""
        value = self.get("general.name")
        return str(value) if isinstance(value, str | int | float) else None

    def get(self, key: str, default: Any = None) -> Any:
        """A metadata value of any type, as Python; the methods below refuse unexpected types."""
        pair = self.pairs.get(key)
        return default if pair is None else pair.value

    def text(self, key: str, default: str = "") -> str:
        """A value that must be text; MtpError otherwise."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self._unexpected(key, "text", value)
        return value

    def count(self, key: str, default: int = 0) -> int:
        """A value that must be one integer, from 0 to MAX_COUNT; MtpError otherwise."""
        return self._counted(key, self.get(key, default))

    def count_per_layer(self, key: str, default: int = 0) -> int:
        """The same, where the file may list it for every layer: then all must have the same."""
        value = self.get(key, default)
        if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
            value = value[0].item()
        return self._counted(key, value)

    def number(self, key: str, default: float) -> float:
        """A value that must be one finite number; MtpError otherwise."""
        value = self.get(key, default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self._unexpected(key, "a number", value)
        return float(value)

    def _counted(self, key: str, value: object) -> int:
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            raise self._unexpected(key, "a count", value)
        return value

    def _unexpected(self, key: str, wanted: str, value: object) -> MtpError:
        shown = "a list" if isinstance(value, np.ndarray | list) else str(value)[:40]
        return MtpError(f"{self.path}: {key}: expected {wanted}, found {shown}")

    def tensor(self, name: str) -> GgufTensor:
        """What the file says of a tensor; MtpError where it has none of that name."""
        if name not in self.tensors:
            raise MtpError(f"{self.path}: {name} is missing")
        return self.tensors[name]

    def read(self, name: str, begin: int = 0, n_bytes: int | None = None) -> bytes:
        """Bytes of a tensor from byte `begin` of it on."""
        tensor = self.tensor(name)
        n_wanted = tensor.n_bytes - begin if n_bytes is None else n_bytes
        return read_range(tensor.file, name, tensor.offset + begin, n_wanted)


def read_gguf(path: Path) -> GgufFile:
    """Read and validate a GGUF header; MtpError in one line on anything malformed."""
    check_gguf(path)
    try:
        with path.open("rb") as file:
            return _Parser(path, file).parse()
    except OSError as error:
        raise MtpError(f"{path}: {error.strerror}") from error


class _Parser:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.size = os.fstat(file.fileno()).st_size

    def parse(self) -> GgufFile:
        self.file.seek(len(MAGIC))
        (version,) = self.unpack("<I")
        if version not in (2, VERSION):
            if version in (VERSION << 24, 2 << 24):
                raise MtpError(f"{self.path}: a big-endian GGUF; expected little-endian")
            raise MtpError(f"{self.path}: GGUF version {version}; expected {VERSION}")
        n_tensors, n_pairs = self.unpack("<QQ")
        if n_tensors > MAX_ENTRIES or n_pairs > MAX_ENTRIES:
            raise MtpError(
                f"{self.path}: {n_tensors} tensors and {n_pairs} pairs announced; expected at most "
                f"{MAX_ENTRIES} of each"
            )
        pairs: dict[str, Pair] = {}
        for _ in range(n_pairs):
            key = self.string("a metadata key")
            if key in pairs:
                raise MtpError(f"{self.path}: {key}: appears twice")
            pairs[key] = self.pair(key)
        described = [self.description() for _ in range(n_tensors)]
        return GgufFile(self.path, pairs, self.placed(described, self.alignment(pairs)))

    def take(self, n_bytes: int, what: str) -> bytes:
        position = self.file.tell()
        if n_bytes > self.size - position or position + n_bytes > MAX_HEADER_BYTES:
            raise MtpError(
                f"{self.path}: {what}: expected {n_bytes} bytes at {position}, the file has "
                f"{self.size} (is it truncated?)"
            )
        return self.file.read(n_bytes)

    def unpack(self, layout: str, what: str = "header") -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def string(self, what: str) -> str:
        raw = self.raw_string(what)[8:]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise MtpError(f"{self.path}: {what}: not UTF-8") from error

    def raw_string(self, what: str) -> bytes:
        head = self.take(8, what)
        (n_bytes,) = struct.unpack("<Q", head)
        if n_bytes > MAX_STRING_BYTES:
            raise MtpError(
                f"{self.path}: {what}: a string of {n_bytes} bytes; expected at most "
                f"{MAX_STRING_BYTES}"
            )
        return head + self.take(n_bytes, what)

    def kind(self, key: str) -> GGUFValueType:
        (code,) = self.unpack("<I", key)
        try:
            return GGUFValueType(code)
        except ValueError:
            raise MtpError(f"{self.path}: {key}: value type {code} is not known") from None

    def pair(self, key: str) -> Pair:
        kind = self.kind(key)
        if kind == V.STRING:
            return Pair(kind, self.raw_string(key))
        if kind != V.ARRAY:
            return Pair(kind, self.take(np.dtype(_SCALARS[kind]).itemsize, key))
        element = self.kind(key)
        (count,) = self.unpack("<Q", key)
        head = struct.pack("<IQ", element, count)
        if element == V.ARRAY:
            raise MtpError(f"{self.path}: {key}: arrays of arrays are not supported")
        if element == V.STRING:
            if count > self.size // 8:
                raise MtpError(f"{self.path}: {key}: {count} strings announced")
            return Pair(kind, head + b"".join([self.raw_string(key) for _ in range(count)]))
        return Pair(kind, head + self.take(count * np.dtype(_SCALARS[element]).itemsize, key))

    def description(self) -> tuple[str, tuple[int, ...], Kind, int]:
        name = self.string("a tensor name")
        (n_dims,) = self.unpack("<I", name)
        if not 1 <= n_dims <= MAX_DIMENSIONS:
            raise MtpError(f"{self.path}: {name}: {n_dims} dimensions")
        shape = tuple(reversed(self.unpack(f"<{n_dims}Q", name)))
        code, offset = self.unpack("<IQ", name)
        try:
            kind = kind_of(code)
        except MtpError as error:
            raise MtpError(f"{self.path}: {name}: {error}") from error
        if not fits(kind, shape[-1]) or 0 in shape:
            raise MtpError(f"{self.path}: {name}: {kind.name} cannot hold shape {shape}")
        return name, shape, kind, offset

    def alignment(self, pairs: Mapping[str, Pair]) -> int:
        pair = pairs.get(KEY_ALIGNMENT)
        value = ALIGNMENT if pair is None else pair.value
        if type(value) is not int or value < 8 or value > 1 << 20 or value & (value - 1):
            raise MtpError(f"{self.path}: {KEY_ALIGNMENT}: {str(value)[:40]}, not a power of two")
        return value

    def placed(
        self,
        described: list[tuple[str, tuple[int, ...], Kind, int]],
        alignment: int,
    ) -> dict[str, GgufTensor]:
        start = -(-self.file.tell() // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, shape, kind, offset in described:
            n_bytes = math.prod(shape[:-1]) * row_bytes(kind, shape[-1])
            if name in tensors:
                raise MtpError(f"{self.path}: {name}: appears twice")
            if offset % alignment or start + offset + n_bytes > self.size:
                raise MtpError(
                    f"{self.path}: {name}: {n_bytes} bytes at {start + offset} do not fit the "
                    f"file of {self.size} (is it truncated?)"
                )
            tensors[name] = GgufTensor(name, shape, kind, start + offset, n_bytes, self.path)
        end = 0
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
            if tensor.offset < end:
                raise MtpError(
                    f"{self.path}: {tensor.name}: overlaps the tensor before it: expected it at "
                    f"byte {end} or later, found at {tensor.offset}"
                )
            end = tensor.offset + tensor.n_bytes
        return tensors
