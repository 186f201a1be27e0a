"""A saved timeline as a file.

    magic            8 bytes
    n                8 bytes, little-endian: how long the header is
    sum              4 bytes, little-endian: the header's CRC-32
    header           JSON: the key it was saved under; of each array name, type, shape, CRC-32
    arrays           one after another: the ids, the target's state, what drafts holds

Nothing of a file is believed before its length and its sums are right. Knows nothing of models.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.types import Ids, Saved
from mtp_cli.whole_file import write_whole_bytes

_MAGIC = b"mtpkept2"
_START_BYTES = 20  # magic, n and sum
_HEADER_BYTES_MAX = 1 << 20
_IDS, _STATE, _DRAFTER = "ids", "state", "drafter."
_TYPES = {name: np.dtype(name) for name in ("uint8", "int32", "int64", "float32")}
_Array = npt.NDArray[Any]


class Damaged(Exception):
    """It is not what was written, or was written for something else."""


def write_saved(path: Path, key: str, saved: Saved) -> None:
    """Whole or not at all, readable by its owner alone; OSError where there is no room."""
    arrays = dict(_arrays(saved))
    entries = [
        [name, array.dtype.name, list(array.shape), zlib.crc32(array.data)]
        for name, array in arrays.items()
    ]
    header = json.dumps({"key": key, "arrays": entries}).encode()
    numbers = len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(4, "little")
    start = _MAGIC + numbers + header
    write_whole_bytes(path, [start, *(array.data for array in arrays.values())])


def size_of(saved: Saved) -> int:
    """About how many bytes its file has."""
    return sum(array.nbytes for _name, array in _arrays(saved))


def _arrays(saved: Saved) -> Iterator[tuple[str, _Array]]:
    yield _IDS, np.array(saved.ids, np.int32)
    yield _STATE, saved.state
    for name, array in saved.drafter.items():
        yield _DRAFTER + name, np.ascontiguousarray(array)


def read_ids(path: Path, key: str) -> Ids:
    """The ids alone; OSError, or Damaged."""
    with path.open("rb") as file:
        entries = _entries(file, key)
        ids: Ids = _array(file, entries[0])
        return ids


def read_saved(path: Path, key: str) -> Saved:
    """OSError, or Damaged."""
    with path.open("rb") as file:
        arrays = {entry[0]: _array(file, entry) for entry in _entries(file, key)}
    if not arrays.keys() >= {_IDS, _STATE}:
        raise Damaged("it lacks something")
    drafter = {
        name.removeprefix(_DRAFTER): array
        for name, array in arrays.items()
        if name.startswith(_DRAFTER)
    }
    return Saved(tuple(arrays[_IDS].tolist()), arrays[_STATE], drafter)


def _entries(file: BinaryIO, key: str) -> list[Any]:
    """The header's, where the file is as long as they say."""
    start = file.read(_START_BYTES)
    n_header = int.from_bytes(start[8:16], "little")
    if start[:8] != _MAGIC or n_header > _HEADER_BYTES_MAX:
        raise Damaged("not such a file")
    text = file.read(n_header)
    if zlib.crc32(text) != int.from_bytes(start[16:], "little"):
        raise Damaged("its header's sum is wrong")
    try:
        header = json.loads(text)
        entries = header["arrays"]
        n_bytes = sum(_n_bytes(kind, shape) for _name, kind, shape, _sum in entries)
        is_own = header["key"] == key and entries[0][0] == _IDS
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"its header: {error}") from error
    if not is_own or file.seek(0, 2) != _START_BYTES + n_header + n_bytes:
        raise Damaged("another key, or not as long as it says")
    file.seek(_START_BYTES + n_header)
    return list(entries)


def _n_bytes(kind: str, shape: list[int]) -> int:
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("no shape")
    return math.prod(shape) * _TYPES[kind].itemsize


def _array(file: BinaryIO, entry: list[Any]) -> _Array:
    _name, kind, shape, expected = entry
    array = np.fromfile(file, _TYPES[kind], math.prod(shape)).reshape(shape)
    if zlib.crc32(array.data) != expected:
        raise Damaged("its sum is wrong")
    return array
