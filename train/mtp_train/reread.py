"""Reads a corpus again as prompts, for the rows that layers of the target read.

Owns the context that reads: one sequence a decode, no output. The text is there, so this takes a
fraction of what writing it took. Knows nothing of heads or of PyTorch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.memory import fits_laid_out
from mtp_cli.errors import MtpError
from mtp_train.batching import rows_of, split_rows
from mtp_train.corpus import read_shard
from mtp_train.layer_rows import Rows, missing_layers, unit_rows, write_rows


class LayerReader:
    """A context that gives the input rows of some layers for texts of at most n_ctx tokens."""

    def __init__(self, model: Model, layers: Sequence[int], n_ctx: int, n_threads: int):
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_threads = params.n_threads_batch = n_threads
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        self._rows = rows_of(model, layers, params, n_ctx)
        self._handle = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise MtpError(f"{model.path}: no context of {n_ctx} tokens")
        self._n_layers = len(layers)
        if self._rows is not None:
            self._rows.ask(self._handle)
        self._batch = lib.llama_batch_init(n_ctx, 0, 1)
        for i in range(n_ctx):
            self._batch.n_seq_id[i], self._batch.pos[i], self._batch.logits[i] = 1, i, 0
            self._batch.seq_id[i][0] = 0

    def read(self, ids: npt.NDArray[np.int32]) -> list[npt.NDArray[np.float32]]:
        """(n, n_embd) of each layer, views that the next text overwrites."""
        self._batch.n_tokens = n = len(ids)
        ctypes.memmove(self._batch.token, np.ascontiguousarray(ids, np.int32).ctypes.data, 4 * n)
        lib.llama_memory_clear(lib.llama_get_memory(self._handle), False)
        if self._rows is None:
            return []
        self._rows.begin()
        code = lib.llama_decode(self._handle, self._batch)
        if code != 0:
            raise MtpError(f"llama.cpp could not read a text of {n} tokens (code {code})")
        return split_rows(self._rows, n, self._n_layers)

    def close(self) -> None:
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._handle)


def add_layers(
    model: Path,
    shards: Sequence[Path],
    target: str,
    layers: Sequence[int],
    *,
    eps: float,
    n_threads: int,
    on_text: Callable[[int], None] = lambda _n: None,
) -> None:
    """Give shards the rows of the layers that they lack.

    target:  the fingerprint of the model, which wrote them
    eps:     what the target's norms add under the root
    on_text: is told the tokens of each text read
    """
    loaded = Model(model, lays_out=fits_laid_out(read_shards(model)))
    try:
        for path in shards:
            lacks, texts = missing_layers(path, layers), list(read_shard(path, target))
            reader = LayerReader(loaded, lacks, max(map(len, texts)), n_threads)
            found: list[list[Rows]] = [[] for _ in lacks]
            for text in texts:
                for kept, rows in zip(found, reader.read(text.ids), strict=True):
                    kept.append(unit_rows(rows, eps))
                on_text(len(text))
            reader.close()
            for layer, kept in zip(lacks, found, strict=True):
                write_rows(path, layer, np.concatenate(kept))
    finally:
        loaded.close()
