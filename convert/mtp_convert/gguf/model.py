"""A GGUF seen as a model: its target, its heads, its fingerprint, its per-layer metadata.

Owns telling heads from target in an existing file. Knows nothing of checkpoints or of writing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFValueType

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.gguf.header import GgufFile, Pair
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.splits import read_whole
from mtp_convert.tensors import formats

_BLOCK = re.compile(r"^blk\.([0-9]{1,9})\.")
SHARED = ("token_embd.weight", "output_norm.weight", "output.weight")
ASSISTANT = "gemma4-assistant"
LAYER_READERS = ("eagle3", "dflash")  # drafters that read rows of their target's layers
BLOCK_COUNT, NEXTN = "block_count", "nextn_predict_layers"


@dataclass(frozen=True)
class GgufModel:
    file: GgufFile

    @property
    def path(self) -> Path:
        return self.file.path

    @cached_property
    def arch(self) -> str:
        if not self.file.architecture:
            raise MtpError(f"{self.path}: general.architecture is missing")
        return self.file.architecture

    def key(self, name: str) -> str:
        return f"{self.arch}.{name}"

    @cached_property
    def n_layers(self) -> int:
        """Layers of the target, heads not counted; nor any that are announced and not there."""
        if self.key(BLOCK_COUNT) not in self.file.pairs:
            raise MtpError(
                f"{self.path}: architecture {self.arch}: {self.key(BLOCK_COUNT)} is missing"
            )
        n_blocks = self.file.count(self.key(BLOCK_COUNT))
        n_nextn = self.file.count(self.key(NEXTN))
        if n_nextn > n_blocks:
            raise MtpError(f"{self.path}: {n_nextn} heads in {n_blocks} blocks")
        holds_heads = self.is_assistant or any(".nextn." in name for name in self.file.tensors)
        last = max((b for b in map(_block, self.file.tensors) if b is not None), default=-1)
        if n_nextn and not holds_heads and last == n_blocks - 1:
            return n_blocks  # the announcement was put on top: its last block is the target's
        return n_blocks - n_nextn

    @property
    def announces_missing_heads(self) -> bool:
        return bool(self.file.count(self.key(NEXTN))) and not self.n_heads

    @cached_property
    def head_tensors(self) -> tuple[str, ...]:
        if self.is_independent:
            return tuple(self.file.tensors)
        first = self.n_layers
        blocks = ((name, _block(name)) for name in self.file.tensors)
        return tuple(name for name, block in blocks if block is not None and block >= first)

    @cached_property
    def n_heads(self) -> int:
        """Heads whose tensors are really here, whatever the metadata announces."""
        if self.is_independent:
            names = map(head_file.EMBEDDED_HEADER.format, range(len(self.file.tensors)))
            return sum(name in self.file.tensors for name in names)
        return len({_block(n) for n in self.head_tensors if ".nextn." in n})

    @property
    def is_head_file(self) -> bool:
        return self.file.text(head_file.KEY_TYPE) == head_file.TYPE

    @property
    def is_sidecar(self) -> bool:
        """Heads without their target, as llama.cpp's converter writes them: no key of ours."""
        own = self.is_head_file or self.is_beside
        return not own and self.n_heads > 0 and not self.has_target

    @property
    def is_independent(self) -> bool:
        """A file of heads that are models of one layer each (`independent.py`)."""
        return self.is_head_file and self.file.text(head_file.KEY_HIDDEN) == "last_layer"

    @property
    def is_assistant(self) -> bool:
        """Heads that are a model of their own, and read their target's keys and values."""
        return self.arch == ASSISTANT

    @property
    def is_layer_reader(self) -> bool:
        """A drafter that reads rows of its target's layers."""
        return self.arch in LAYER_READERS

    @property
    def is_beside(self) -> bool:
        """A model that drafts for another, and is of no use without it."""
        return self.is_assistant or self.is_layer_reader

    @property
    def has_target(self) -> bool:
        return any(_block(n) is not None and n not in self.head_tensors for n in self.file.tensors)

    def matrix(self, name: str) -> tuple[int, int]:
        """Rows and columns of a tensor that must be a matrix; MtpError otherwise."""
        shape = self.file.tensor(name).shape
        if len(shape) != 2:
            raise MtpError(f"{self.path}: {name}: expected a matrix, found {shape}")
        return shape[0], shape[1]

    @property
    def n_embd(self) -> int:
        return self.matrix("token_embd.weight")[1]

    @property
    def n_vocab(self) -> int:
        return self.matrix("token_embd.weight")[0]

    def values(self, name: str) -> npt.NDArray[np.float32]:
        """A small tensor as float32; MtpError where its format cannot be read."""
        tensor = self.file.tensor(name)
        try:
            return formats.decode(self.file.read(name), tensor.kind, tensor.shape)
        except NotImplementedError as error:
            raise MtpError(f"{self.path}: {name}: cannot read {tensor.kind.name}") from error

    def fingerprint(self) -> str:
        return head_file.fingerprint(
            (name, self.values(name))
            for name in self.file.tensors
            if head_file.is_fingerprinted(name, self.n_layers)
        )

    def info(self) -> head_file.HeadInfo:
        """What a head file says of its target; MtpError when it is none."""
        if self.is_beside:
            what = "an assistant" if self.is_assistant else "a drafter"
            raise MtpError(
                f"{self.path}: {what}, which runs whole and from its own file: "
                "lay it beside its target with --heads"
            )
        if not self.is_head_file:
            raise MtpError(f"{self.path}: not a head file (general.type is not mtp-head)")
        try:
            info = head_file.HeadInfo.from_metadata(dict(_values(self.file)))
            stored = {n: (t.shape, t.kind.name) for n, t in self.file.tensors.items()}
            head_file.check_fusion(info.fused, info.n_embd, stored)
            return info
        except MtpError as error:
            raise MtpError(f"{self.path}: {error}") from error

    def resized(self, n_heads: int, pairs: Mapping[str, Pair]) -> dict[str, Pair]:
        """`pairs` of this model for a file with `n_heads` heads; per-layer arrays cut to fit."""
        n_old = self.file.count(self.key(BLOCK_COUNT))
        found = dict(pairs)
        for key, value in pairs.items():
            if key.startswith(self.arch + ".") and value.kind == GGUFValueType.ARRAY:
                array = value.value
                if len(value) == n_old and isinstance(array, np.ndarray):
                    found[key] = pair(array[: self.n_layers + n_heads])
        found[self.key(BLOCK_COUNT)] = pair(self.n_layers + n_heads)
        found.pop(self.key(NEXTN), None)
        if n_heads:
            found[self.key(NEXTN)] = pair(n_heads)
        return found


def _values(file: GgufFile) -> Iterator[tuple[str, object]]:
    for key, value in file.pairs.items():
        if key.startswith("mtp."):
            yield key, value.value


def _block(name: str) -> int | None:
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


def open_model(path: Path) -> GgufModel:
    """Read a GGUF's header, or those of all its parts, as a model."""
    model = GgufModel(read_whole(path))
    if model.arch and not model.file.tensors:
        raise MtpError(f"{path}: holds no tensors")
    return model


def coarse_tensors(model: GgufModel) -> list[str]:
    """Matrices of the heads that are stored in fewer than eight bits."""
    found = []
    for name in model.head_tensors:
        tensor = model.file.tensors[name]
        if len(tensor.shape) > 1 and tensor.n_bytes < math.prod(tensor.shape):
            found.append(name)
    return found
