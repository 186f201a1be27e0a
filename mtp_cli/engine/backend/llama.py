"""Models, contexts and batches of llama.cpp, with errors where it has nulls and aborts.

Owns every native handle and turns each null or non-zero return into an `MtpError`. Knows nothing
of drafting, sampling or text beyond the vocabulary.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.batch import SEQUENCE, Batch, Reads, floats_at
from mtp_cli.engine.backend.binding import (
    errors,
    ext,
    failure,
    get_embeddings_layer_inp,
    lib,
    open_file_at,
    set_embeddings_layer_inp,
)
from mtp_cli.engine.backend.ggml_reference import CpuKernels
from mtp_cli.engine.backend.memory import within_memory
from mtp_cli.engine.backend.stack import on_deep_stack
from mtp_cli.errors import MtpError

our_kernels.install()  # before any model: ggml's list of buffer types has to be as ggml made it

Floats = npt.NDArray[np.float32]

GGML_TYPE_BF16 = 30
# Up to so many cells ggml knows only one way: llama.cpp counts them in steps of 256.
_ONE_WAY_CELLS = 256
_N_VIEWS = 64
_SHORT_TEXT = 4096  # bytes that any pre-tokenizer takes on an ordinary stack
_STACK_BYTES, _STACK_PER_BYTE = 64 << 20, 512


def _reporter(on_progress: Callable[[float], None]) -> Callable[[float, Any], bool]:
    def report(fraction: float, _user_data: Any) -> bool:
        on_progress(fraction)
        return True

    return report


class HiddenSource(Enum):
    """Where a context's hidden rows come from.

    NONE:  it gives none
    EMBD:  the row after the final norm; every architecture gives it, but only for a decode whose
           rows are all outputs
    NEXTN: the row an MTP-aware architecture hands its own heads, for output rows
    LAYER: the row the last layer reads, for every row of a decode, whether output or not; of the
           architectures met here only `llama` gives it
    """

    NONE = "none"
    EMBD = "embd"
    NEXTN = "nextn"
    LAYER = "layer"


class Model:
    """A loaded GGUF.

    n_gpu_layers: -1 for all; with `no_alloc` the file is only examined, and no weight is read
    offset:       where in the file the GGUF begins
    """

    def __init__(
        self,
        path: Path,
        *,
        n_gpu_layers: int = -1,
        no_alloc: bool = False,
        offset: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        params = lib.llama_model_default_params()
        params.load_mtp = True
        params.no_alloc = no_alloc
        params.n_gpu_layers = n_gpu_layers
        if no_alloc:
            params.load_mode = lib.LLAMA_LOAD_MODE_NONE  # llama.cpp refuses a mapping here
        if on_progress is not None:
            params.progress_callback = lib.llama_progress_callback(_reporter(on_progress))
        errors.clear()
        self.path = path
        if offset:
            with open_file_at(path, offset) as file:
                self.handle = lib.llama_model_load_from_file_ptr(file, params)
        else:
            self.handle = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise failure(f"{path}: llama.cpp could not load this model")
        self.vocab = lib.llama_model_get_vocab(self.handle)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
        self.n_embd = int(lib.llama_model_n_embd_out(self.handle))
        self.n_layer = int(lib.llama_model_n_layer(self.handle))
        self.n_layer_nextn = int(lib.llama_model_n_layer_nextn(self.handle))
        self.n_ctx_train = int(lib.llama_model_n_ctx_train(self.handle))
        self.is_recurrent = bool(
            lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle)
        )
        self.n_swa = int(lib.llama_model_n_swa(self.handle))
        self.is_mla = any(key.endswith(".attention.kv_lora_rank") for key in self.metadata())
        self.uses_rope = lib.llama_model_rope_type(self.handle) != lib.LLAMA_ROPE_TYPE_NONE

    def check_text(self) -> None:
        """Raise MtpError when this is no model that continues text.

        Also tries all of its vocabulary: llama.cpp throws C++ exceptions, which nothing here could
        catch, where a tokenizer's own tokens are missing or misspelt.
        """
        if lib.llama_vocab_type(self.vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            raise MtpError(f"{self.path}: this model has no vocabulary to read text with")
        is_decoder = lib.llama_model_has_decoder(self.handle)
        if not is_decoder or lib.llama_model_has_encoder(self.handle):
            raise MtpError(f"{self.path}: this model has an encoder; only decoders continue text")
        if lib.llama_model_is_diffusion(self.handle):
            raise MtpError(f"{self.path}: this is a diffusion model; only decoders continue text")
        letters = "".join(map(chr, range(1, 0x250)))
        for parse_special in (False, True):
            self.tokenize(letters + "語🙂", add_special=True, parse_special=parse_special)
        for token in range(self.n_vocab):
            self.piece(token, special=True)

    def metadata(self) -> dict[str, str]:
        """Every scalar key of the file, as llama.cpp prints its value."""
        pairs = {}
        for index in range(lib.llama_model_meta_count(self.handle)):
            key = self._string(lib.llama_model_meta_key_by_index, index)
            pairs[key] = self._string(lib.llama_model_meta_val_str_by_index, index)
        return pairs

    def _string(self, read: Callable[..., int], index: int) -> str:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            needed = read(self.handle, index, buffer, size)
            if needed < size:
                return buffer.value.decode(errors="replace")
            size = needed + 1

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        raw = text.encode()
        if len(raw) <= _SHORT_TEXT:
            return self._tokenize(raw, add_special, parse_special)
        # Some pre-tokenizers are a std::regex, which recurses once for each character.
        return on_deep_stack(
            _STACK_BYTES + _STACK_PER_BYTE * len(raw),
            lambda: self._tokenize(raw, add_special, parse_special),
        )

    def _tokenize(self, raw: bytes, add_special: bool, parse_special: bool) -> list[int]:
        size = len(raw) + 8
        while True:
            ids = (lib.llama_token * size)()
            n = lib.llama_tokenize(self.vocab, raw, len(raw), ids, size, add_special, parse_special)
            if n >= 0:
                return list(ids[:n])
            if -n <= size:
                raise failure("llama.cpp could not tokenize the text")
            size = -n

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of one token; they may end inside a UTF-8 character."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def is_eog(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def suppressed(self) -> list[int]:
        """Ids that are never to be chosen (the file's tokenizer.ggml.suppress_tokens)."""
        n_ids = ctypes.c_int32()
        ids = lib.llama_vocab_get_suppress_tokens(self.vocab, ctypes.byref(n_ids))
        return list(ids[: n_ids.value]) if ids and n_ids.value else []

    def special_text(self, name: str) -> str:
        """The text of the "bos" or "eos" token, empty when the vocabulary has none."""
        token = {"bos": lib.llama_vocab_bos, "eos": lib.llama_vocab_eos}[name](self.vocab)
        return "" if token < 0 else self.piece(token, special=True).decode(errors="replace")

    def close(self) -> None:
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None


class Context:
    """A native context over sequence 0: decode rows, read logits and hidden rows, drop a suffix.

    n_outputs: the most rows of one decode that may ask for outputs
    hidden:    which hidden rows it gives
    mtp:       a context that runs the model's MTP block instead of its trunk; its rows carry a
               hidden row (n_embd floats) beside the token id
    shares:    the context whose memory an assistant reads, which has none of its own; it must
               outlive this one
    reads:     hidden rows alone, for a head that never sees a token
    n_rs_seq:  snapshots of recurrent state to keep for rollback, where the architecture can
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
        mtp: bool = False,
        shares: Context | None = None,
        reads: Reads | None = None,
        n_rs_seq: int = 0,
        one_kernel: bool = False,
    ) -> None:
        params = lib.llama_context_default_params()
        if one_kernel and not CpuKernels.can_switch() and not model.is_mla:
            params.type_k = GGML_TYPE_BF16
        params.n_ctx = n_ctx
        params.n_batch = n_batch
        params.n_ubatch = min(n_batch, 512)
        params.n_outputs_max = n_outputs
        params.n_threads = params.n_threads_batch = n_threads
        params.n_rs_seq = n_rs_seq
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        params.embeddings = hidden is HiddenSource.EMBD
        params.ctx_type = lib.LLAMA_CONTEXT_TYPE_MTP if mtp else lib.LLAMA_CONTEXT_TYPE_DEFAULT
        params.ctx_other = None if shares is None else shares.handle
        params.no_perf = True
        errors.clear()
        self.model = model
        with within_memory():
            self.handle: Any = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise failure(f"{model.path}: llama.cpp could not create a context of {n_ctx} tokens")
        if hidden is HiddenSource.NEXTN:
            self._ask_for_nextn()
        if hidden is HiddenSource.LAYER:
            set_embeddings_layer_inp(self.handle, model.n_layer - 1, True)
        self._memory = lib.llama_get_memory(self.handle)
        self._kernels = CpuKernels(self.handle) if one_kernel else None
        self._hidden = hidden
        self._n_outputs_max = n_outputs
        self._has_hidden = False
        # llama.cpp seldom moves its outputs, and to make a view takes longer than to look it up.
        self._views: dict[tuple[int, int, int], Floats] = {}
        self._batch = Batch(n_batch, model.n_embd, reads or (Reads.BOTH if mtp else Reads.TOKENS))
        self.n_batch = n_batch
        self.n_ctx = int(lib.llama_n_ctx(self.handle))
        self.n_rs_seq = int(lib.llama_n_rs_seq(self.handle))

    @property
    def n_embd(self) -> int:
        return self.model.n_embd

    def _ask_for_nextn(self) -> None:
        """Ask for the rows of outputs, and for graphs whose memory is laid out with them.

        The context's graphs were laid out when it was created, before anyone could ask. In that
        layout a trunk that hands out the row before its final norm (mimo2) writes the normed row
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
    ) -> None:
        """Run rows at `position`, `position + 1`, ...; rows from `first_output` on give outputs.

        hidden: (n_rows, n_embd) float32, for contexts that read them. Where they read nothing
                else, `tokens` only says how many rows there are.
        """
        self._n_rows = len(tokens)
        self.n_outputs = len(tokens) - first_output
        if self.n_outputs > self._n_outputs_max:
            raise ValueError(f"{self.n_outputs} output rows, {self._n_outputs_max} were reserved")
        self._batch.fill(tokens, position, first_output, hidden)
        self._has_hidden = self._hidden is not HiddenSource.NONE
        if self._hidden is HiddenSource.EMBD:
            self._has_hidden = first_output == 0
            lib.llama_set_embeddings(self.handle, self._has_hidden)
        if self._kernels is not None:
            # One row alone may be a prompt's; it takes the way of a draft's rows.
            is_prompt = self._n_rows > self._n_outputs_max
            n_cells = position + self._n_rows
            self._kernels.use_reference(n_cells > _ONE_WAY_CELLS and not is_prompt)
        errors.clear()
        code = lib.llama_decode(self.handle, self._batch.native)
        if code == 1:
            raise MtpError(f"the context of {self.n_ctx} tokens is full")
        if code != 0:
            raise failure(f"llama.cpp could not decode {len(tokens)} rows (code {code})")

    def logits(self) -> Floats:
        """(n_outputs, n_vocab) float32, a view that the next decode overwrites."""
        return self._view(lib.llama_get_logits(self.handle), self.n_outputs, self.model.n_vocab)

    def hidden(self) -> Floats | None:
        """(n_outputs, n_embd) float32, a view that the next decode overwrites; None without.

        Of HiddenSource.LAYER (n_rows, n_embd): it gives every row of the decode.
        """
        if not self._has_hidden:
            return None
        if self._hidden is HiddenSource.LAYER:
            pointer = get_embeddings_layer_inp(self.handle, self.model.n_layer - 1)
            return self._view(pointer, self._n_rows, self.model.n_embd)
        read = (
            lib.llama_get_embeddings
            if self._hidden is HiddenSource.EMBD
            else ext.llama_get_embeddings_nextn
        )
        return self._view(read(self.handle), self.n_outputs, self.model.n_embd)

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
