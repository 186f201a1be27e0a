"""PyTorch's own files (.pth, .pt, .bin): the tensors of a saved state dict, without PyTorch.

Owns the zip layout that torch.save has written since PyTorch 1.6 (serialization notes in
PyTorch's documentation): `*/data.pkl` describes the tensors, `*/data/KEY` holds each storage's
bytes, uncompressed, so that a tensor is a range of bytes of the file like any other. Knows nothing
of folders or model families.

A pickle is a program. This one is never unpickled: `pickletools` splits it into instructions, and
the few that a state dict needs are carried out here over plain tuples, lists and dicts. The only
globals known are PyTorch's storage types, OrderedDict and the function that makes a tensor, as
names; nothing is imported and nothing is called. Whatever else a file holds is an error.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.shard import ITEM_BITS, MAX_DIMENSIONS, TensorEntry

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "Float8_e4m3fnStorage": "F8_E4M3",
}  # fmt: skip
_LOCAL_HEADER = 30  # bytes of a zip entry's own header before its name and extra field
_MAX_ENTRIES = 1_000_000
_MAX_PICKLE_BYTES = 8_000_000  # a hundred thousand tensors; a 7B model's has 40 kB

# What a damaged pickle's instructions raise.
_DAMAGED = (
    ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, Warning,
)  # fmt: skip
# What zipfile raises on files that are none, or odd ones.
_NOT_A_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError)


@dataclass(frozen=True)
class _Global:
    """A name that a pickle asks for."""

    name: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    n_items: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int  # in items
    shape: tuple[int, ...]


class _Mark:
    """Where a run of values begins on the stack."""


_MARK = _Mark()
_TENSOR, _PARAMETER, _DICT = (
    _Global("torch._utils _rebuild_tensor_v2"),
    _Global("torch._utils _rebuild_parameter"),
    _Global("collections OrderedDict"),
)
_GLOBALS = {g.name: g for g in (_TENSOR, _PARAMETER, _DICT)} | {
    f"torch {name}": _Global(dtype) for name, dtype in _STORAGES.items()
}


def read_pth(file: Path) -> dict[str, TensorEntry]:
    """The tensors of one file, by name; MtpError names what is malformed or not allowed."""
    try:
        n_bytes = file.stat().st_size
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len(entries) > _MAX_ENTRIES:
                raise MtpError(f"{file}: {len(entries)} entries")
            root = _root(file, entries)
            raw = _stored(file, n_bytes, entries[f"{root}/data.pkl"])
            state = _state_dict(file, _read(file, *raw))
            order = entries.get(f"{root}/byteorder")
            if order is not None and _read(file, *_stored(file, n_bytes, order)) != b"little":
                raise MtpError(f"{file}: saved on a big-endian machine")
    except _NOT_A_ZIP as error:
        raise MtpError(f"{file}: not a file of torch.save's (PyTorch 1.6 or later)") from error
    except OSError as error:
        raise MtpError(f"{file}: {error.strerror or error}") from error
    return {
        name: _entry(file, n_bytes, name, tensor, entries, root) for name, tensor in state.items()
    }


def _root(file: Path, entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder inside the archive, which has the name the file was first saved under."""
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise MtpError(f"{file}: not a file of torch.save's: expected one data.pkl")
    return roots[0]


def _stored(file: Path, n_bytes: int, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """The byte range of an entry's data."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise MtpError(f"{file}: {entry.filename}: compressed; torch.save does not compress")
    header = _read(file, entry.header_offset, entry.header_offset + _LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise MtpError(f"{file}: {entry.filename}: no entry at byte {entry.header_offset}")
    n_name, n_extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    begin = entry.header_offset + _LOCAL_HEADER + n_name + n_extra
    if begin + entry.file_size > n_bytes:
        raise MtpError(f"{file}: {entry.filename}: ends after the file (is it truncated?)")
    return begin, begin + entry.file_size


def _read(file: Path, begin: int, end: int) -> bytes:
    if not 0 <= end - begin <= _MAX_PICKLE_BYTES:
        raise MtpError(f"{file}: a description of {end - begin} bytes")
    with file.open("rb", buffering=0) as stream:
        return os.pread(stream.fileno(), end - begin, begin)


def _entry(
    file: Path,
    n_bytes: int,
    name: str,
    tensor: _Tensor,
    entries: dict[str, zipfile.ZipInfo],
    root: str,
) -> TensorEntry:
    """Where a tensor's bytes lie, after its storage has been found to be as long as announced."""
    storage = tensor.storage
    found = entries.get(f"{root}/data/{storage.key}")
    if found is None:
        raise MtpError(f"{file}: {name}: its storage {storage.key!r} is missing")
    begin, end = _stored(file, n_bytes, found)
    size = ITEM_BITS[storage.dtype] // 8
    if end - begin != storage.n_items * size:
        raise MtpError(
            f"{file}: {name}: {storage.n_items} items of {storage.dtype} announced, "
            f"{end - begin} bytes stored"
        )
    n_items = math.prod(tensor.shape)
    if tensor.offset + n_items > storage.n_items:
        raise MtpError(f"{file}: {name}: {tensor.shape} lies outside its storage")
    start = begin + tensor.offset * size
    return TensorEntry(name, storage.dtype, tensor.shape, file, start, start + n_items * size)


def _state_dict(file: Path, pickle: bytes) -> dict[str, _Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pickletools warns of escapes that mean nothing
            found = _Machine().run(pickle)
    except MtpError as error:
        raise MtpError(f"{file}: {error}") from None
    except _DAMAGED as error:
        raise MtpError(f"{file}: a damaged data.pkl: {error}") from error
    tensors = found if isinstance(found, dict) else {}
    if set(tensors) == {"model"} and isinstance(tensors["model"], dict):
        tensors = tensors["model"]
    state = {name: t for name, t in tensors.items() if isinstance(t, _Tensor)}
    if not state:
        raise MtpError(f"{file}: expected a state dict, names and tensors; found no tensor")
    return state


class _Machine:
    """Carries out the instructions of a state dict's pickle; refuses all others."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(pickle)):
            if opcode.name == "STOP":
                return self._stack.pop()
            do = _INSTRUCTIONS.get(opcode.name)
            if do is None:
                raise MtpError(f"data.pkl: instruction {opcode.name} is not allowed")
            do(self, argument)
        raise ValueError("no end")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def items(self) -> list[Any]:
        """What was pushed since the last mark."""
        found: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            found.append(value)
        return found[::-1]

    def top(self, n: int) -> list[Any]:
        """The last n values."""
        if len(self._stack) < n or any(value is _MARK for value in self._stack[-n:]):
            raise IndexError("too few values")
        found = self._stack[-n:]
        del self._stack[-n:]
        return found

    def named(self, name: str) -> None:
        if name not in _GLOBALS:
            raise MtpError(f"data.pkl: asks for {name[:60]!r}, which no state dict needs")
        self.push(_GLOBALS[name])

    def storage(self) -> None:
        """A persistent id: ("storage", its type, its key, its device, its length)."""
        word, kind, key, _, n_items = self._stack.pop()
        is_known = isinstance(kind, _Global) and kind.name in ITEM_BITS
        if word != "storage" or not is_known or not isinstance(key, str):
            raise MtpError("data.pkl: a persistent id that is no storage")
        self.push(_Storage(kind.name, key, _size(n_items)))

    def reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if function is _TENSOR:
            self.push(_tensor(*arguments[:4]))
        elif function is _PARAMETER:
            self.push(arguments[0])
        elif function is _DICT and arguments == ():
            self.push({})
        else:
            raise MtpError("data.pkl: a call that no state dict needs")

    def extend_dict(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or not all(isinstance(key, str) for key in items[::2]):
            raise TypeError("named items for something that is no dict")
        target.update(zip(items[::2], items[1::2], strict=True))

    def extend_list(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError("items for something that is no list")
        target.extend(items)

    def build(self) -> None:
        """A state for the object below: a state dict's own is its versions, of no use here."""
        self._stack.pop()


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"{str(value)[:40]} is not a size")
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    """A tensor in row order; a transposed or otherwise strided one is refused."""
    if not isinstance(storage, _Storage) or len(shape) > MAX_DIMENSIONS:
        raise TypeError("a tensor without a storage")
    sizes = tuple(_size(n) for n in shape)
    expected = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    differ = [s != e for s, e, n in zip(strides, expected, sizes, strict=True) if n > 1]
    if any(differ):
        raise MtpError(f"data.pkl: a tensor {sizes} that is not stored row by row")
    return _Tensor(storage, _size(offset), sizes)


def _constants() -> Iterator[tuple[str, Callable[[_Machine, Any], None]]]:
    """Instructions that push their argument, or a fixed value, or something new and empty."""
    for name in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1",
                 "BINFLOAT"):  # fmt: skip
        yield name, lambda machine, argument: machine.push(argument)
    yield "NONE", lambda machine, _: machine.push(None)
    yield "NEWTRUE", lambda machine, _: machine.push(True)
    yield "NEWFALSE", lambda machine, _: machine.push(False)
    yield "MARK", lambda machine, _: machine.push(_MARK)
    yield "EMPTY_TUPLE", lambda machine, _: machine.push(())
    yield "EMPTY_DICT", lambda machine, _: machine.push({})
    yield "EMPTY_LIST", lambda machine, _: machine.push([])


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict(_constants()),
    "PROTO": lambda machine, _: None,
    "BINPUT": lambda machine, index: machine.put(index),
    "LONG_BINPUT": lambda machine, index: machine.put(index),
    "BINGET": lambda machine, index: machine.get(index),
    "LONG_BINGET": lambda machine, index: machine.get(index),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.items())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.top(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.top(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.top(3))),
    "GLOBAL": lambda machine, name: machine.named(name),
    "BINPERSID": lambda machine, _: machine.storage(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "SETITEM": lambda machine, _: machine.extend_dict(machine.top(2)),
    "SETITEMS": lambda machine, _: machine.extend_dict(machine.items()),
    "APPEND": lambda machine, _: machine.extend_list(machine.top(1)),
    "APPENDS": lambda machine, _: machine.extend_list(machine.items()),
    "BUILD": lambda machine, _: machine.build(),
}
