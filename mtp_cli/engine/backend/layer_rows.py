"""The rows that chosen layers of a target read, of every token of a decode, output or not.

Owns which way they come out of llama.cpp. Some of its graphs hand them out when asked; with any
other it would end the process. There its scheduler's callback copies the same tensors by their
names, which costs a stop of all threads at each. Knows nothing of what reads the rows.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mtp_cli.engine.backend.batch import floats_at
from mtp_cli.engine.backend.binding import (
    failure,
    get_embeddings_layer_inp,
    ggml_base,
    lib,
    set_embeddings_layer_inp,
)
from mtp_cli.engine.native import compiled
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError

# The architectures whose graphs set `t_layer_inp` of every layer to the row it reads, by
# src/models/*.cpp of the pinned llama.cpp; tests/engine/backend/test_layer_rows.py reads it again.
# Others set it as well, to what has another width (qwen4exp), is a mean (deepseek4) or is of a
# graph that runs layers twice (nanbeige): the callback serves them, or says that it cannot.
HANDED_OUT = frozenset({
    "gemma4", "gpt-oss", "llama", "mimo2", "minimax-m2", "nemotron_h", "nemotron_h_moe", "qwen3",
    "qwen35", "qwen35moe", "qwen3moe", "qwen3next",
})  # fmt: skip
# The ones of these that also give the row before the final norm, as the input of a layer after the
# last.
LAST_TOO = frozenset({"mimo2", "nemotron_h", "nemotron_h_moe"})
_NAME_BYTES = 64  # GGML_MAX_NAME
_N_VIEWS = 64  # of output rows that are kept


def last_layer(architecture: str, n_layers: int) -> int:
    """The last one whose row can be had, of a model with so many layers."""
    return n_layers if architecture in LAST_TOO else n_layers - 1


class LayerRows(Protocol):
    """How a context comes by its layers' rows."""

    def prepare(self, params: Any) -> None:
        """Before the context is created: change its parameters."""

    def ask(self, context: Any) -> None:
        """Once it is created."""

    def begin(self) -> None:
        """Before every decode."""

    def rows(self, n_rows: int, *beside: Floats) -> Floats:
        """(n_rows, n_layers * n_embd) float32 of the last decode, layer by layer; a view that the
        next decode overwrites, or an array.

        beside: (n_rows, width) each, to stand behind the layers'
        """


def layer_rows(architecture: str, layers: Sequence[int], n_embd: int, n_batch: int) -> LayerRows:
    """The way for this architecture; at most n_batch rows a decode."""
    if architecture in HANDED_OUT:
        return HandedOut(layers, n_embd)
    return ByName(layers, n_embd, n_batch)


class HandedOut:
    """llama.cpp keeps them for who asks."""

    def __init__(self, layers: Sequence[int], n_embd: int) -> None:
        self._layers, self._n_embd = tuple(layers), n_embd
        # llama.cpp seldom moves its outputs, and to make a view takes longer than to look it up.
        self._view = functools.lru_cache(_N_VIEWS)(floats_at)

    def prepare(self, params: Any) -> None:
        pass

    def ask(self, context: Any) -> None:
        self._context = context
        for layer in self._layers:
            set_embeddings_layer_inp(context, layer, True)

    def begin(self) -> None:
        pass

    def rows(self, n_rows: int, *beside: Floats) -> Floats:
        found = [*(self._of(layer, n_rows) for layer in self._layers), *beside]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def _of(self, layer: int, n_rows: int) -> Floats:
        address = get_embeddings_layer_inp(self._context, layer)
        if not address:
            raise failure("llama.cpp returned no rows of a layer")
        return self._view(address, n_rows, self._n_embd)


class _Wanted(ctypes.Structure):
    """`Wanted` of layer_rows.cpp"""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("n", "capacity", "width")),
        *((name, ctypes.c_void_p) for name in ("names", "rows", "n_filled", "read")),
    )


class ByName:
    """The scheduler's callback copies them: what layer L reads is layer L - 1's `l_out`."""

    def __init__(self, layers: Sequence[int], n_embd: int, n_batch: int) -> None:
        self._names = [f"l_out-{layer - 1}".encode() for layer in layers]
        self._rows = np.zeros((len(layers), n_batch, n_embd), np.float32)
        self._n_filled = np.zeros(len(layers), np.int32)
        self._base = _tensor_functions()
        library = compiled.load()
        self._callback: Any = _ANSWER(self._answer) if library is None else library.mtp_layer_rows
        self._text = np.array(self._names, f"S{_NAME_BYTES}")
        self._wanted = _Wanted(
            n=len(layers),
            capacity=n_batch,
            width=n_embd,
            names=self._text.ctypes.data,
            rows=self._rows.ctypes.data,
            n_filled=self._n_filled.ctypes.data,
            read=ctypes.cast(self._base.ggml_backend_tensor_get, ctypes.c_void_p),
        )

    def prepare(self, params: Any) -> None:
        params.cb_eval = ctypes.cast(self._callback, lib.ggml_backend_sched_eval_callback)
        params.cb_eval_user_data = ctypes.cast(ctypes.byref(self._wanted), ctypes.c_void_p)

    def ask(self, context: Any) -> None:
        pass

    def begin(self) -> None:
        self._n_filled[:] = 0

    def rows(self, n_rows: int, *beside: Floats) -> Floats:
        if np.any(self._n_filled != n_rows):
            raise MtpError("llama.cpp gives heads no rows of this architecture's layers")
        found = [*self._rows[:, :n_rows], *beside]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def _answer(self, tensor: int, is_question: bool, _user_data: Any) -> bool:
        """What layer_rows.cpp does, where nothing is compiled: milliseconds a decode."""
        name = self._base.ggml_get_name(tensor)
        if is_question or name not in self._names:
            return name in self._names
        place, n_bytes = self._names.index(name), self._base.ggml_nbytes(tensor)
        capacity, width = self._rows.shape[1:]
        n, start = n_bytes // (4 * width), int(self._n_filled[place])
        is_matrix = self._base.ggml_is_matrix(tensor) and self._base.ggml_is_contiguous(tensor)
        if is_matrix and n * width * 4 == n_bytes and n <= capacity - start:
            to = self._rows[place, start:].ctypes.data
            self._base.ggml_backend_tensor_get(tensor, to, 0, n_bytes)
            self._n_filled[place] += n
        return True


_ANSWER = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)


@functools.cache
def _tensor_functions() -> ctypes.CDLL:
    base, tensor, size = ggml_base(), ctypes.c_void_p, ctypes.c_size_t
    signatures: dict[str, tuple[list[Any], Any]] = {
        "ggml_get_name": ([tensor], ctypes.c_char_p),
        "ggml_nbytes": ([tensor], size),
        "ggml_is_matrix": ([tensor], ctypes.c_bool),
        "ggml_is_contiguous": ([tensor], ctypes.c_bool),
        "ggml_backend_tensor_get": ([tensor, tensor, size, size], None),
    }
    for name, (argtypes, restype) in signatures.items():
        function = getattr(base, name)
        function.argtypes, function.restype = argtypes, restype
    return base
