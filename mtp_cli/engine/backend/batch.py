"""The rows of one decode, as llama.cpp takes them. Knows nothing of models or contexts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from enum import Enum

import numpy as np

from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.types import Floats

SEQUENCE = 0  # one conversation at a time: everything lives in sequence 0


def floats_at(address: int, n_rows: int, width: int) -> Floats:
    """(n_rows, width) float32: a view of memory that is not Python's."""
    array = (ctypes.c_float * (n_rows * width)).from_address(address)
    return np.frombuffer(memoryview(array), np.float32).reshape(-1, width)


class Reads(Enum):
    """What rows are made of: token ids, hidden rows, or one of each side by side."""

    TOKENS = "tokens"
    HIDDEN = "hidden"
    BOTH = "both"


class Batch:
    """The rows of one decode in memory of our own.

    llama.cpp's own batches hold token ids or embeddings; an MTP row has both.

    n_axes: of a position, for rows without a token: M-RoPE has four, of which text uses the first
            three alike and the last not at all
    """

    def __init__(self, capacity: int, n_embd: int, reads: Reads, n_axes: int = 1) -> None:
        self._n_axes = n_axes
        # ctypes' arrays: numpy takes several times as long to fill a few places.
        self._token = (ctypes.c_int32 * capacity)()
        self._pos = (ctypes.c_int32 * (n_axes * capacity))()
        self._outputs = (ctypes.c_int8 * capacity)()
        n_embd = 0 if reads is Reads.TOKENS else n_embd
        self._embd = np.zeros((capacity, n_embd), np.float32)
        self._n_seq_id = (ctypes.c_int32 * capacity)(*[1] * capacity)
        self._seq_id = ctypes.c_int32(SEQUENCE)
        seq_ids = (ctypes.POINTER(ctypes.c_int32) * capacity)(
            *[ctypes.pointer(self._seq_id)] * capacity
        )
        self._seq_ids = seq_ids
        self.native = lib.llama_batch(
            n_tokens=0,
            token=None if reads is Reads.HIDDEN else self._token,
            embd=self._embd.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) if n_embd else None,
            pos=self._pos,
            n_seq_id=self._n_seq_id,
            seq_id=ctypes.cast(seq_ids, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._outputs,
        )

    def fill(
        self, tokens: Sequence[int], position: int, first_output: int, hidden: Floats | None
    ) -> None:
        n = len(tokens)
        self._token[:n] = list(tokens)
        positions = [*range(position, position + n)]
        self._pos[:n] = positions
        if self._n_axes > 1:
            self._pos[n : self._n_axes * n] = [*positions * (self._n_axes - 2), *[0] * n]
        self._outputs[:n] = [int(i >= first_output) for i in range(n)]
        if hidden is not None:
            self._embd[:n] = hidden
        self.native.n_tokens = n
