"""Reads a GGUF's header through ggml's own parser, in milliseconds where Python's takes seconds.

Owns the checks that need no llama.cpp model: that the file is a GGUF, whole, and what its keys
say. Knows nothing of what the keys mean. Every function raises `MtpError` naming the file.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli import head_file
from mtp_cli.engine.backend.gguf_keys import InitParams, gguf_library, pairs
from mtp_cli.errors import MtpError
from mtp_cli.paths.gguf import check_gguf

_VERSIONS = (2, 3)
ASSISTANT = "gemma4-assistant"
EAGLE3 = "eagle3"
BLOCK = "dflash"  # DFlash drafters, DFlash2 and DSpark among them
_GGML_F32, _GGML_I8, _GGML_I64 = 0, 24, 27
_MOST_EMBEDDED = 1 << 20  # bytes of an embedded header; one of ours has two thousand
_BLOCK_NAME = re.compile(r"^blk\.(\d{1,9})\.")
_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor's bytes lie: `offset` from the file's start, `n_bytes` long.

    shape: in ggml's order, the contiguous dimension first, trailing ones left out
    """

    name: str
    ggml_type: int
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Header:
    """A GGUF's keys and tensor directory.

    pairs: strings, numbers and numeric arrays (numpy); arrays of strings are left out, since the
           vocabulary's are large and only llama.cpp needs them
    corrected: pairs that differ from the file's own, because the file announces heads and has none
    """

    path: Path
    pairs: dict[str, Any]
    tensors: dict[str, TensorEntry]
    corrected: Mapping[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return str(self.pairs.get("general.architecture", ""))

    def number(self, key: str) -> int:
        """An architecture's own integer key (`{architecture}.{key}`); 0 when it is absent, or of
        another kind.
        """
        return _integer(self.pairs.get(f"{self.architecture}.{key}"))

    def says(self, key: str, text: str) -> bool:
        """Whether a key holds that text; an array would compare element by element."""
        value = self.pairs.get(key)
        return isinstance(value, str) and value == text

    @property
    def n_target_layers(self) -> int:
        return self.number("block_count") - self.number("nextn_predict_layers")


def _integer(value: object) -> int:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return int(value) if is_number else 0  # type: ignore[call-overload]


def read_header(path: Path) -> Header:
    """The header of one GGUF file, after checking that the file holds all it announces."""
    n_bytes = check_preamble(path)
    handle = gguf_library().gguf_init_from_file(os.fsencode(path), InitParams(True, None))
    return _header(path, handle, n_bytes)


def read_embedded(outer: Header, name: str) -> Header:
    """The header that a tensor of bytes holds: a GGUF inside a GGUF, whose data come after it.

    Its tensors' offsets count from the start of the outer file.
    """
    entry = outer.tensors.get(name)
    if entry is None or entry.ggml_type != _GGML_I8 or entry.n_bytes > _MOST_EMBEDDED:
        raise MtpError(f"{outer.path}: {name}: expected the header of a head, as bytes")
    with outer.path.open("rb") as file:
        file.seek(entry.offset)
        raw = file.read(entry.n_bytes)
    handle = gguf_library().gguf_init_from_buffer(raw, len(raw), InitParams(True, None))
    n_bytes = outer.path.stat().st_size
    return _header(outer.path, handle, n_bytes, entry.offset)


def _header(path: Path, handle: int | None, n_bytes: int, start: int = 0) -> Header:
    """What a parsed header says; it is freed. start: where in the file it begins."""
    if not handle:
        raise MtpError(f"{path}: the GGUF header is damaged; get the file again")
    gguf = gguf_library()
    try:
        header = Header(path, pairs(handle), _tensors(gguf, handle, start))
    finally:
        gguf.gguf_free(handle)
    end = max((t.offset + t.n_bytes for t in header.tensors.values()), default=0)
    if end > n_bytes:
        raise MtpError(
            f"{path}: truncated: expected at least {end:,} bytes, found {n_bytes:,}; "
            "get the file again"
        )
    return header


def check_preamble(path: Path) -> int:
    """The file's size, after its first 24 bytes have been found to be a GGUF's."""
    n_bytes = check_gguf(path)
    with path.open("rb") as file:
        preamble = file.read(24)
    if len(preamble) < 24:
        raise MtpError(
            f"{path}: truncated: a GGUF header has 24 bytes, found {n_bytes}; get the file again"
        )
    version = struct.unpack("<I", preamble[4:8])[0]
    if struct.unpack(">I", preamble[4:8])[0] in _VERSIONS:
        raise MtpError(
            f"{path}: a big-endian GGUF; only little-endian files can be read: "
            "gguf-convert-endian turns one into the other"
        )
    if version not in _VERSIONS:
        raise MtpError(
            f"{path}: GGUF version {version}; versions 2 and 3 can be read: get the model as such"
        )
    return n_bytes


def _tensors(gguf: ctypes.CDLL, handle: int, start: int) -> dict[str, TensorEntry]:
    start += gguf.gguf_get_data_offset(handle)
    entries = {}
    for index in range(gguf.gguf_get_n_tensors(handle)):
        name = gguf.gguf_get_tensor_name(handle, index).decode(errors="replace")
        entries[name] = TensorEntry(
            name,
            gguf.gguf_get_tensor_type(handle, index),
            _shape(gguf.gguf_get_tensor_ne(handle, index)),
            start + gguf.gguf_get_tensor_offset(handle, index),
            gguf.gguf_get_tensor_size(handle, index),
        )
    return entries


def _shape(ne: Any) -> tuple[int, ...]:
    shape = list(ne.contents)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def read_shards(path: Path) -> list[Header]:
    """The headers of every file of a model: one, or the shards llama.cpp's gguf-split wrote.

    A model that announces heads it lacks is one without heads.
    """
    shards = _shards(path)
    return [_without_missing_heads(shards), *shards[1:]]


def _without_missing_heads(shards: list[Header]) -> Header:
    """The first header, with the numbers of blocks that are really there."""
    first = shards[0]
    n_blocks, n_nextn = first.number("block_count"), first.number("nextn_predict_layers")
    names = [name for header in shards for name in header.tensors]
    is_target = not is_drafter(first)
    if n_nextn < 1 or not is_target or any(".nextn." in name for name in names):
        return first
    # Some write the number on top of a target's, others beside the blocks that the heads had.
    is_whole = any(name.startswith(f"blk.{n_blocks - 1}.") for name in names)
    corrected = {
        f"{first.architecture}.block_count": n_blocks if is_whole else n_blocks - n_nextn,
        f"{first.architecture}.nextn_predict_layers": 0,
    }
    return replace(first, pairs={**first.pairs, **corrected}, corrected=corrected)


def _shards(path: Path) -> list[Header]:
    first = read_header(path)
    n_shards = _integer(first.pairs.get("split.count"))
    if n_shards <= 1:
        return [first]
    match = _SHARD.match(path.name)
    if not match or int(match[3]) != n_shards:
        raise MtpError(
            f"{path}: one of {n_shards} shards, but not named ...-00001-of-{n_shards:05}.gguf; "
            "give it back its name"
        )
    if int(match[2]) != 1:
        raise MtpError(f"{path}: shard {int(match[2])} of {n_shards}; name the first one")
    names = [f"{match[1]}-{number:05}-of-{n_shards:05}.gguf" for number in range(2, n_shards + 1)]
    return [first, *(read_header(path.with_name(name)) for name in names)]


def read_f32(header: Header, name: str) -> npt.NDArray[np.float32] | None:
    """A float32 tensor's values, flat; None when it is absent or of another type."""
    entry = header.tensors.get(name)
    if entry is None or entry.ggml_type != _GGML_F32:
        return None
    return np.fromfile(header.path, "<f4", entry.n_bytes // 4, offset=entry.offset)


def read_i64(header: Header, name: str) -> npt.NDArray[np.int64] | None:
    """An int64 tensor's values, flat; None when it is absent or of another type."""
    entry = header.tensors.get(name)
    if entry is None or entry.ggml_type != _GGML_I64:
        return None
    return np.fromfile(header.path, "<i8", entry.n_bytes // 8, offset=entry.offset)


def target_fingerprint(shards: list[Header]) -> str:
    """The fingerprint of the target these files hold (`head_file.fingerprint`)."""
    return head_file.fingerprint(_target_norms(shards))


def _target_norms(shards: list[Header]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for header in shards:
        for name in header.tensors:
            if head_file.is_fingerprinted(name, shards[0].n_target_layers):
                values = read_f32(header, name)
                if values is not None:
                    yield name, values


def n_vocab(shards: list[Header]) -> int:
    """Rows of the token embedding, which llama.cpp holds to be the vocabulary's size."""
    for header in shards:
        entry = header.tensors.get("token_embd.weight")
        if entry is not None:
            return entry.shape[1] if len(entry.shape) > 1 else 0
    return 0


def is_head_file(header: Header) -> bool:
    """Whether this is a head-only file (`mtp_cli.head_file`)."""
    return header.says(head_file.KEY_TYPE, head_file.TYPE)


def is_assistant(header: Header) -> bool:
    """Whether this is a model that drafts from another's keys and values."""
    return header.architecture == ASSISTANT


def is_eagle3(header: Header) -> bool:
    """Whether this is an EAGLE-3 drafter, which reads rows of another model's layers."""
    return header.architecture == EAGLE3


def is_block(header: Header) -> bool:
    """Whether this is a drafter of whole blocks, which reads rows of another model's layers."""
    return header.architecture == BLOCK


def is_sidecar(header: Header) -> bool:
    """Whether these are heads without their target, as llama.cpp's converter writes them."""
    n_target, n_nextn = header.n_target_layers, header.number("nextn_predict_layers")
    if is_head_file(header) or min(n_target, n_nextn) < 1:
        return False
    blocks = {int(found[1]) for found in map(_BLOCK_NAME.match, header.tensors) if found}
    return n_target in blocks and min(blocks) == n_target


def is_heads_alone(header: Header) -> bool:
    """Heads without their target, which llama.cpp runs as it runs those inside a model."""
    return is_head_file(header) or is_sidecar(header)


def is_drafter(header: Header) -> bool:
    """Whether this drafts beside another model, and is none that writes by itself."""
    is_ours_or_shares = is_heads_alone(header) or is_assistant(header)
    return is_ours_or_shares or is_eagle3(header) or is_block(header)


def has_heads(shards: list[Header]) -> bool:
    """Whether MTP heads lie in the model's own file: announced, and really there."""
    n_nextn = shards[0].number("nextn_predict_layers")
    first = f"blk.{shards[0].n_target_layers}.nextn.eh_proj.weight"
    return n_nextn > 0 and any(first in header.tensors for header in shards)
