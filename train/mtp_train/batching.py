"""A llama.cpp context over many sequences, one row of each per decode, with logits and rows.

Owns that context and its batch, and the copy of the target that makes wide decodes cheap.
Knows nothing of text, sampling or training.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.backend.layer_rows import LayerRows, layer_rows
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.files.gguf_header import read_shards, target_fingerprint
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from mtp_train.files import written_whole


class ManySequences:
    """`n_slots` independent sequences of at most `n_ctx` tokens.

    layers: those whose input rows every decode gives beside the final ones
    """

    def __init__(
        self, model: Model, n_slots: int, n_ctx: int, n_threads: int, layers: Sequence[int] = ()
    ):
        params = lib.llama_context_default_params()
        params.n_ctx = n_slots * n_ctx
        params.n_seq_max = n_slots
        params.n_batch = params.n_ubatch = params.n_outputs_max = n_slots
        params.n_threads = params.n_threads_batch = n_threads
        params.embeddings = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        # A cache per sequence, and flash attention: a shared one reads every sequence's keys.
        params.kv_unified = False
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._layer_rows = rows_of(model, layers, params, n_slots)
        self._handle = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise MtpError(f"{model.path}: no context for {n_slots} sequences of {n_ctx} tokens")
        if self._layer_rows is not None:
            self._layer_rows.ask(self._handle)
        self._n = len(layers)
        self._shapes = (n_slots, model.n_vocab), (n_slots, model.n_embd)
        self._token, self._pos = np.zeros(n_slots, np.int32), np.zeros(n_slots, np.int32)
        self._seq, self._ones = np.arange(n_slots, dtype=np.int32), np.ones(n_slots, np.int32)
        self._wanted = np.ones(n_slots, np.int8)
        self._seq_rows = (ctypes.POINTER(ctypes.c_int32) * n_slots)(
            *(_pointer(self._seq[i:], ctypes.c_int32) for i in range(n_slots))
        )
        self._batch = lib.llama_batch(
            n_tokens=n_slots,
            token=_pointer(self._token, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._pos, ctypes.c_int32),
            n_seq_id=_pointer(self._ones, ctypes.c_int32),
            seq_id=ctypes.cast(self._seq_rows, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=_pointer(self._wanted, ctypes.c_int8),
        )

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> tuple[Floats, Floats]:
        """One row of every sequence: logits (n_slots, n_vocab) and rows after the output norm
        (n_slots, n_embd), views that the next decode overwrites."""
        self._token[:], self._pos[:] = tokens, positions
        if self._layer_rows is not None:
            self._layer_rows.begin()
        code = lib.llama_decode(self._handle, self._batch)
        if code != 0:
            raise MtpError(f"llama.cpp could not decode {len(tokens)} sequences (code {code})")
        pointers = lib.llama_get_logits(self._handle), lib.llama_get_embeddings(self._handle)
        logits, rows = (
            np.ctypeslib.as_array(pointer, shape)
            for pointer, shape in zip(pointers, self._shapes, strict=True)
        )
        return logits, rows

    def layer_rows(self) -> list[Floats]:
        """Of the last decode, the rows that each of `layers` read: (n_slots, n_embd), views that
        the next decode overwrites."""
        n_slots = self._shapes[0][0]
        return [] if self._layer_rows is None else split_rows(self._layer_rows, n_slots, self._n)

    def drop(self, slot: int) -> None:
        """Forget one sequence."""
        lib.llama_memory_seq_rm(lib.llama_get_memory(self._handle), slot, -1, -1)

    def close(self) -> None:
        lib.llama_free(self._handle)


def bf16_copy(model: Path, folder: Path) -> Path:
    """The model with its matrices widened to BF16, made once for each target in a folder. The
    function stays the same to rounding, and many rows at once are far cheaper than in the narrow
    formats."""
    copy = folder / f"target-bf16-{target_fingerprint(read_shards(model))[:16]}.gguf"
    if not copy.exists():
        params = lib.llama_model_quantize_default_params()
        params.ftype = lib.LLAMA_FTYPE_MOSTLY_BF16
        params.output_tensor_type = params.token_embedding_type = int(GGMLQuantizationType.BF16)
        params.allow_requantize = True
        with written_whole(copy) as partial:
            arguments = str(model).encode(), str(partial).encode(), ctypes.byref(params)
            if lib.llama_model_quantize(*arguments) != 0:
                raise MtpError(f"{model}: llama.cpp could not widen it to BF16")
    return copy


def rows_of(model: Model, layers: Sequence[int], params: Any, n_batch: int) -> LayerRows | None:
    """How a context that is to be made with these parameters gives its layers' rows."""
    if not layers:
        return None
    found = layer_rows(model.architecture, layers, model.n_embd, n_batch)
    found.prepare(params)
    return found


def split_rows(source: LayerRows, n_rows: int, n_layers: int) -> list[Floats]:
    """(n_rows, n_embd) of each layer, of the last decode."""
    try:
        return np.split(source.rows(n_rows), n_layers, 1)
    except MtpError as error:
        raise MtpError(f"{error}; --layers none trains a head that does without") from error


def _pointer(array: npt.NDArray[Any], ctype: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctype))
