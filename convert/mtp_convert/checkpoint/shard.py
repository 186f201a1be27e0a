"""One safetensors file: its header, validated before any data is touched.

Owns the file layout (8 bytes of header length, a JSON header, then the data) and bounded reads
from it. Knows nothing of folders, indexes or model families.

The header is parsed here and not by the safetensors library because that library maps the whole
file, reports no offsets, and its numpy side has neither BF16 nor FP8; the converter needs all
three, to keep memory bounded and to name the tensor that is wrong.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError, json_fault
from mtp_cli.paths.content import HEAD_BYTES, lfs_pointer
from mtp_convert.files import read_range

# The safetensors library's own limit: a larger header is an attack or an accident.
MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 8

ITEM_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "C64": 64,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: absolute byte range [begin, end) of `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def n_bytes(self) -> int:
        return self.end - self.begin

    def read(self, begin: int, n_bytes: int) -> bytes:
        """n_bytes of the tensor from byte `begin` of it; MtpError when the file has shrunk."""
        return read_range(self.file, self.name, self.begin + begin, n_bytes)


class _Twice(Exception):
    """A name that appears twice."""


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file, by name; MtpError names what is malformed."""
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if (pointer := lfs_pointer(stream.read(HEAD_BYTES))) is not None:
                raise MtpError(f"{file}: {pointer}")
            stream.seek(0)
            head = stream.read(8)
            if len(head) < 8:
                raise MtpError(f"{file}: expected a safetensors file, found {size} bytes")
            if head == b"version ":
                raise MtpError(f"{file}: a Git LFS pointer, not the file itself; run git lfs pull")
            n_header = int.from_bytes(head, "little")
            if n_header > MAX_HEADER_BYTES or 8 + n_header > size:
                raise MtpError(
                    f"{file}: header of {n_header} bytes in a file of {size}; expected at most "
                    f"{min(MAX_HEADER_BYTES, size - 8)}"
                )
            text = stream.read(n_header)
    except OSError as error:
        raise MtpError(f"{file}: {error.strerror}") from error
    entries = dict(_entries(file, _parse(file, text), 8 + n_header, size))
    _check_layout(file, entries, 8 + n_header, size)
    return entries


def _parse(file: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except _Twice as error:
        raise MtpError(f"{file}: header: {str(error)[:60]} appears twice") from None
    except (ValueError, RecursionError) as error:
        raise MtpError(f"{file}: header: {json_fault(error)}") from error
    if not isinstance(header, dict):
        raise MtpError(f"{file}: header: expected an object, found {type(header).__name__}")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name)
        found[name] = value
    return found


def _entries(
    file: Path, header: dict[str, Any], start: int, size: int
) -> Iterator[tuple[str, TensorEntry]]:
    for name, fields in header.items():
        if name != "__metadata__":
            yield name, _entry(file, name, fields, start, size)


def _entry(file: Path, name: str, fields: Any, start: int, size: int) -> TensorEntry:
    where = f"{file}: {name}"
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= fields.keys():
        raise MtpError(f"{where}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise MtpError(
            f"{where}: number format {dtype!r} is not known; expected one of {', '.join(ITEM_BITS)}"
        )
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise MtpError(f"{where}: shape {str(shape)[:60]} is not a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise MtpError(f"{where}: data_offsets {str(offsets)[:60]} are not two offsets")
    begin, end = offsets
    if not begin <= end <= size - start:
        raise MtpError(
            f"{where}: bytes {begin} to {end} lie outside the {size - start} of the file "
            "(is it truncated?)"
        )
    expected, rest = divmod(math.prod(shape) * ITEM_BITS[dtype], 8)
    if end - begin != expected or rest:
        raise MtpError(
            f"{where}: {dtype} {tuple(shape)} takes {expected} bytes, the offsets span "
            f"{end - begin}"
        )
    return TensorEntry(name, dtype, tuple(shape), file, start + begin, start + end)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 62 for value in values
    )


def _check_layout(file: Path, entries: dict[str, TensorEntry], start: int, size: int) -> None:
    """The format's own rule: the tensors tile the data without overlap or gap."""
    position = start
    for entry in sorted(entries.values(), key=lambda entry: (entry.begin, entry.end)):
        if entry.begin < position:
            raise MtpError(
                f"{file}: {entry.name}: overlaps the tensor before it: expected it at byte "
                f"{position}, found at {entry.begin}"
            )
        if entry.begin > position:
            raise MtpError(
                f"{file}: {entry.name}: a gap of {entry.begin - position} bytes: expected it at "
                f"byte {position}, found at {entry.begin}"
            )
        position = entry.end
    if position != size:
        raise MtpError(f"{file}: {size - position} bytes after the last tensor")
