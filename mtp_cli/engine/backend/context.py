"""A native context: rows decoded, logits and hidden rows read, a suffix of its memory dropped.

Owns the context's native handle, and turns each null or non-zero return into an `MtpError`. Knows
nothing of drafting, sampling or text.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtp_cli.engine.backend.abort import Stopped, asking
from mtp_cli.engine.backend.batch import SEQUENCE, Batch, Reads, floats_at
from mtp_cli.engine.backend.binding import (
    errors,
    ext,
    failure,
    lib,
)
from mtp_cli.engine.backend.cache import F16, TYPES, CacheTypes
from mtp_cli.engine.backend.ggml_reference import CpuKernels
from mtp_cli.engine.backend.layer_rows import LayerRows, layer_rows
from mtp_cli.engine.backend.memory import within_memory
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.rope import AS_TRAINED, Rope
from mtp_cli.engine.types import Bytes, Floats, HiddenSource
from mtp_cli.errors import MtpError

_ABORTED = 2  # what llama_decode returns then
# Cells up to which ggml has one way to attend: llama.cpp pads what it reads to multiples of 256.
_ONE_WAY_CELLS = 256
_N_VIEWS = 64  # views of output rows kept: llama.cpp seldom moves its outputs


class Context:
    """A native context over sequence 0: decode rows, read logits and hidden rows, drop a suffix.

    n_outputs: the most rows of one decode that may ask for outputs
    hidden:    which hidden rows it gives
    layers:    of HiddenSource.LAYER and LAYER_AND_EMBD, the layers whose input rows they are; the
               last one by default
    mtp:       a context that runs the model's MTP block instead of its target; its rows carry a
               hidden row (n_embd floats) beside the token id
    shares:    the context whose memory an assistant reads, which has none of its own; it must
               outlive this one
    reads:     hidden rows alone, for a head that never sees a token
    n_rs_seq:  snapshots of recurrent state to keep for rollback, where the architecture can
    cache:     what its memory keeps keys and values in
    rope:      how it rotates positions
    adapts:    it runs the model's text, with the model's adapters
    owns_model: the model is closed with it
    one_kernel: on the CPU, let one row and several go through the same attention kernel. From 512
               cells on, ggml splits a single row's keys among its threads, and only a single
               row's, which rounds otherwise; its reference kernels do not. Where those are out of
               reach, neither does it with keys and values of different types
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_batch: int,
        n_outputs: int,
        n_threads: int,
        hidden: HiddenSource,
        layers: Sequence[int] = (),
        mtp: bool = False,
        shares: Context | None = None,
        reads: Reads | None = None,
        n_rs_seq: int = 0,
        cache: CacheTypes = F16,
        one_kernel: bool = False,
        rope: Rope = AS_TRAINED,
        adapts: bool = False,
        owns_model: bool = False,
    ) -> None:
        params = lib.llama_context_default_params()
        needs_reference = one_kernel and cache.splits
        if needs_reference and not CpuKernels.can_switch() and not model.is_mla:
            cache = cache._replace(k="bf16")
        params.type_k, params.type_v = TYPES[cache.k], TYPES[cache.v]
        params.n_ctx = n_ctx
        params.n_batch = n_batch
        params.n_ubatch = min(n_batch, 512)
        params.n_outputs_max = n_outputs
        params.n_threads = params.n_threads_batch = n_threads
        params.n_rs_seq = n_rs_seq
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        params.embeddings = hidden.has_final
        params.ctx_type = lib.LLAMA_CONTEXT_TYPE_MTP if mtp else lib.LLAMA_CONTEXT_TYPE_DEFAULT
        params.ctx_other = None if shares is None else shares.handle
        params.no_perf = True
        rope.apply(params)
        self._layer_rows: LayerRows | None = None
        if hidden.is_of_layers:
            layers = layers or (model.n_layer - 1,)
            self._layer_rows = layer_rows(model.architecture, layers, model.n_embd, n_batch)
            self._layer_rows.prepare(params)
        errors.clear()
        self.model = model
        self._owns_model = owns_model
        with within_memory():
            self.handle: Any = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            refused = cache.refusal(errors[0]) if errors else None
            too_large = (
                f"llama.cpp could not create a context of {n_ctx} tokens (a smaller --ctx takes "
                "less memory)"
            )
            raise failure(f"{model.path}: {refused or too_large}")
        if adapts:
            model.adapters.set_on(self.handle)
        if hidden is HiddenSource.NEXTN:
            self._ask_for_nextn()
        if self._layer_rows is not None:
            self._layer_rows.ask(self.handle)
        self._memory = lib.llama_get_memory(self.handle)
        self._kernels = CpuKernels(self.handle) if needs_reference else None
        self._hidden = hidden
        self._n_outputs_max = n_outputs
        self._has_hidden = self._has_final = False
        # llama.cpp seldom moves its outputs, and to make a view takes longer than to look it up.
        self._views: dict[tuple[int, int, int], Floats] = {}
        self._batch = Batch(n_batch, model.n_embd, reads or (Reads.BOTH if mtp else Reads.TOKENS))
        self.n_batch = n_batch
        self.n_ctx = int(lib.llama_n_ctx(self.handle))
        self.n_rs_seq = int(lib.llama_n_rs_seq(self.handle))

    def use_threads(self, n_threads: int) -> None:
        """From the next decode on."""
        lib.llama_set_n_threads(self.handle, n_threads, n_threads)

    @property
    def n_embd(self) -> int:
        return self.model.n_embd

    def _ask_for_nextn(self) -> None:
        """Ask for the rows of outputs, and for graphs whose memory is laid out with them.

        The context's graphs were laid out when it was created, before anyone could ask. In that
        layout a target that hands out the row before its final norm (mimo2) writes the normed row
        over it. Clearing a control vector, though there is none, lets llama.cpp lay them out anew
        at the next decode.
        """
        ext.llama_set_embeddings_nextn(self.handle, True, True)
        if lib.llama_set_adapter_cvec(self.handle, None, 0, self.model.n_embd, 0, 0) != 0:
            raise failure(f"{self.model.path}: llama.cpp could not give the heads their rows")

    def decode(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        first_output: int = 0,
        hidden: Floats | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> None:
        """Run rows at `position`, `position + 1`, ...; rows from `first_output` on give outputs.

        hidden:     (n_rows, n_embd) float32, for contexts that read them. Where they read nothing
                    else, `tokens` only says how many rows there are.
        is_stopped: asked again and again meanwhile; once it says so the decode ends with `Stopped`,
                    and the last 512 rows or fewer are not in memory
        """
        self._n_rows = len(tokens)
        self.n_outputs = len(tokens) - first_output
        if self.n_outputs > self._n_outputs_max:
            raise ValueError(f"{self.n_outputs} output rows, {self._n_outputs_max} were reserved")
        self._batch.fill(tokens, position, first_output, hidden)
        self._has_hidden = self._hidden is not HiddenSource.NONE
        if self._hidden.has_final:
            self._has_final = first_output == 0
            self._has_hidden = self._has_final or self._hidden.is_of_layers
            lib.llama_set_embeddings(self.handle, self._has_final)
        if self._kernels is not None:
            # One row alone may be a prompt's; it takes the way of a draft's rows.
            is_prompt = self._n_rows > self._n_outputs_max
            n_cells = position + self._n_rows
            self._kernels.use_reference(n_cells > _ONE_WAY_CELLS and not is_prompt)
        if self._layer_rows is not None:
            self._layer_rows.begin()
        errors.clear()
        with contextlib.nullcontext() if is_stopped is None else asking(self.handle, is_stopped):
            code = lib.llama_decode(self.handle, self._batch.native)
        if code == _ABORTED:
            raise Stopped
        if code == 1:
            raise MtpError(f"the context of {self.n_ctx} tokens is full")
        if code != 0:
            raise failure(f"llama.cpp could not decode {len(tokens)} rows (code {code})")

    def read(self, tokens: Sequence[int], position: int, hidden: Floats) -> None:
        """Run rows that give no outputs, see `decode`: they are only remembered."""
        self.decode(tokens, position, first_output=len(tokens), hidden=hidden)

    def logits(self) -> Floats:
        """(n_outputs, n_vocab) float32, a view that the next decode overwrites."""
        return self._view(lib.llama_get_logits(self.handle), self.n_outputs, self.model.n_vocab)

    def hidden(self) -> Floats | None:
        """(n_outputs, n_embd) float32, a view that the next decode overwrites; None without.

        Of HiddenSource.LAYER (n_rows, n_layers * n_embd): it gives every row of the decode. Of
        LAYER_AND_EMBD (n_rows, (n_layers + 1) * n_embd), an array.
        """
        if not self._has_hidden:
            return None
        if self._hidden is HiddenSource.LAYER_AND_EMBD:
            return self._layers_and_final()
        if self._layer_rows is not None:
            return self._layer_rows.rows(self._n_rows)
        read = (
            lib.llama_get_embeddings
            if self._hidden is HiddenSource.EMBD
            else ext.llama_get_embeddings_nextn
        )
        return self._view(read(self.handle), self.n_outputs, self.model.n_embd)

    def _layers_and_final(self) -> Floats:
        assert self._layer_rows is not None
        if self._has_final:
            pointer = lib.llama_get_embeddings(self.handle)
            final = self._view(pointer, self._n_rows, self.model.n_embd)
        else:
            final = np.zeros((self._n_rows, self.model.n_embd), np.float32)
        return self._layer_rows.rows(self._n_rows, final)

    def _view(self, pointer: Any, n_rows: int, width: int) -> Floats:
        if not pointer:
            raise failure("llama.cpp returned no output rows")
        key = (ctypes.addressof(pointer.contents), n_rows, width)
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= _N_VIEWS:
                self._views.clear()
            view = self._views[key] = floats_at(*key)
        return view

    def remove_from(self, position: int) -> bool:
        """Drop every cell at `position` and after; False where the memory cannot."""
        return bool(lib.llama_memory_seq_rm(self._memory, SEQUENCE, position, -1))

    def remove_before(self, position: int) -> bool:
        """Drop every cell before `position`; False where the memory cannot."""
        return bool(lib.llama_memory_seq_rm(self._memory, SEQUENCE, -1, position))

    def clear(self) -> None:
        lib.llama_memory_clear(self._memory, True)

    def first_position(self) -> int:
        """The lowest position every layer still holds, -1 when the memory is empty."""
        return int(lib.llama_memory_seq_pos_min(self._memory, SEQUENCE))

    def next_position(self) -> int:
        """The position after the last one in memory."""
        return int(lib.llama_memory_seq_pos_max(self._memory, SEQUENCE)) + 1

    def use_head(self, index: int) -> None:
        """Choose which of a model's chained heads an MTP context runs."""
        ext.llama_set_nextn_layer_offset(self.handle, index)

    def save(self) -> Bytes:
        """All that its memory holds, as bytes."""
        size = lib.llama_state_seq_get_size(self.handle, SEQUENCE)
        state = np.empty(size, np.uint8)
        if lib.llama_state_seq_get_data(self.handle, _pointer(state), size, SEQUENCE) != size:
            raise failure("llama.cpp could not save what the context holds")
        return state

    def restore(self, state: Bytes) -> bool:
        """Hold what was saved, and nothing else; False, and empty, where that failed."""
        self.clear()
        size = len(state)
        if lib.llama_state_seq_set_data(self.handle, _pointer(state), size, SEQUENCE) == size:
            return True
        self.clear()
        return False

    def save_partial(self) -> bytes:
        """The recurrent and sliding-window state, the part that cannot drop a suffix."""
        flags = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        size = lib.llama_state_seq_get_size_ext(self.handle, SEQUENCE, flags)
        buffer = (ctypes.c_uint8 * size)()
        if lib.llama_state_seq_get_data_ext(self.handle, buffer, size, SEQUENCE, flags) != size:
            raise failure("llama.cpp could not save the recurrent state")
        return bytes(buffer)

    def restore_partial(self, state: bytes) -> None:
        flags = lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if not lib.llama_state_seq_set_data_ext(self.handle, buffer, len(state), SEQUENCE, flags):
            raise failure("llama.cpp could not restore the recurrent state")

    def close(self) -> None:
        if self.handle:
            lib.llama_free(self.handle)
            self.handle = None
            if self._owns_model:
                self.model.close()


def _pointer(state: Bytes) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
