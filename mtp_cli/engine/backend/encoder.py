"""A context of a drafter that llama.cpp gives an encoder: rows of several layers become one.

Owns the encoder's batch. Knows nothing of which layers they are, or what is drafted.
"""

from __future__ import annotations

import numpy as np

from mtp_cli.engine.backend.batch import Batch, Reads
from mtp_cli.engine.backend.binding import ext, failure, lib
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.types import Floats, HiddenSource


class EncoderContext(Context):
    """Over its target's context, whose embedding and output the drafter may share.

    target: the context of the model it was made for, which must outlive this one
    width:  of a row to encode
    """

    def __init__(
        self,
        model: Model,
        target: Context,
        *,
        width: int,
        n_ctx: int,
        n_batch: int,
        n_threads: int,
        owns_model: bool = False,
    ) -> None:
        super().__init__(
            model,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_outputs=1,
            n_threads=n_threads,
            hidden=HiddenSource.NEXTN,
            shares=target,
            reads=Reads.BOTH,
            owns_model=owns_model,
        )
        self.width = width
        self._rows = Batch(n_batch, width, Reads.HIDDEN)

    def encode(self, rows: Floats) -> Floats:
        """(n, width) float32 -> (n, n_embd) float32, for `decode` to take as hidden rows."""
        starts = range(0, len(rows), self.n_batch)
        return np.concatenate([self._encode(rows[start:][: self.n_batch]) for start in starts])

    def _encode(self, rows: Floats) -> Floats:
        n_rows = len(rows)
        self._rows.fill([0] * n_rows, self.next_position(), 0, rows)
        if lib.llama_encode(self.handle, self._rows.native) != 0:
            raise failure(f"{self.model.path}: llama.cpp could not encode {n_rows} rows")
        pointer = ext.llama_get_embeddings_nextn(self.handle)
        return self._view(pointer, n_rows, self.n_embd).copy()
