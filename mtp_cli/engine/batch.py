"""The rows of one decode, as llama.cpp takes them. Knows nothing of models or contexts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.binding import lib

Floats = npt.NDArray[np.float32]

SEQUENCE = 0  # one conversation at a time: everything lives in sequence 0


class Reads(Enum):
    """What rows are made of: token ids, hidden rows, or one of each side by side."""

    TOKENS = "tokens"
    HIDDEN = "hidden"
    BOTH = "both"


class Batch:
    """The rows of one decode in memory of our own.

    llama.cpp's own batches hold token ids or embeddings; an MTP row has both.
    """

    def __init__(self, capacity: int, n_embd: int, reads: Reads) -> None:
        self._token = np.zeros(capacity, np.int32)
        self._pos = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        n_embd = 0 if reads is Reads.TOKENS else n_embd
        self._embd = np.zeros((capacity, n_embd), np.float32)
        self._n_seq_id = np.ones(capacity, np.int32)
        self._seq_id = ctypes.c_int32(SEQUENCE)
        seq_ids = (ctypes.POINTER(ctypes.c_int32) * capacity)(
            *[ctypes.pointer(self._seq_id)] * capacity
        )
        self._seq_ids = seq_ids
        self.native = lib.llama_batch(
            n_tokens=0,
            token=None if reads is Reads.HIDDEN else _pointer(self._token, ctypes.c_int32),
            embd=_pointer(self._embd, ctypes.c_float) if n_embd else None,
            pos=_pointer(self._pos, ctypes.c_int32),
            n_seq_id=_pointer(self._n_seq_id, ctypes.c_int32),
            seq_id=ctypes.cast(seq_ids, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def fill(
        self, tokens: Sequence[int], position: int, first_output: int, hidden: Floats | None
    ) -> None:
        n = len(tokens)
        self._token[:n] = tokens
        self._pos[:n] = np.arange(position, position + n)
        self._outputs[:first_output] = 0
        self._outputs[first_output:n] = 1
        if hidden is not None:
            self._embd[:n] = hidden
        self.native.n_tokens = n


def _pointer(array: npt.NDArray[Any], ctype: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctype))
