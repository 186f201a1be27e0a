"""A context of a block drafter: rows of its target become cells, and a block reads them all.

Owns the batch of those rows. Knows nothing of which layers they are of, or what is drafted.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtp_cli.engine.backend.batch import Batch, Reads
from mtp_cli.engine.backend.binding import errors, ext, failure, lib
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.types import Floats, HiddenSource

_N_AXES_MROPE = 4


class BlockContext(Context):
    """Over its target's context, whose embedding and output the drafter may share.

    target: the context of the model it was made for, which must outlive this one
    width:  of a row of the target: those of several layers side by side
    size:   rows of a block
    sees_only_back: rows of a block see those before them alone, else the whole block
    gives_logits, gives_rows: what a block gives: logits, rows of the drafter's own
    n_batch: rows of the target that it takes at once
    """

    def __init__(
        self,
        model: Model,
        target: Context,
        *,
        width: int,
        size: int,
        sees_only_back: bool,
        gives_logits: bool,
        gives_rows: bool,
        n_ctx: int,
        n_batch: int,
        n_threads: int,
        owns_model: bool = False,
    ) -> None:
        super().__init__(
            model,
            n_ctx=n_ctx,
            n_batch=max(n_batch, size),
            n_outputs=size,
            n_threads=n_threads,
            hidden=HiddenSource.NEXTN if gives_rows else HiddenSource.NONE,
            shares=target,
            owns_model=owns_model,
        )
        self._size, self._gives_logits = size, gives_logits
        is_mrope = lib.llama_model_rope_type(model.handle) == lib.LLAMA_ROPE_TYPE_MROPE
        n_axes = _N_AXES_MROPE if is_mrope else 1
        self._taken = Batch(self.n_batch, width, Reads.HIDDEN, n_axes)
        lib.llama_set_causal_attn(self.handle, sees_only_back)
        if gives_rows:
            ext.llama_set_embeddings_nextn(self.handle, True, False)

    def take(self, rows: Floats, position: int) -> None:
        """Make cells of the target's rows at `position` and after, (n_rows, width) float32."""
        n_rows = len(rows)
        self._taken.fill([0] * n_rows, position, n_rows, rows)
        errors.clear()
        if lib.llama_decode(self.handle, self._taken.native) != 0:
            raise failure(f"{self.model.path}: llama.cpp could not take {n_rows} rows")

    def run(self, block: Sequence[int], position: int) -> None:
        """Decode a block, whose cells stay until they are removed."""
        self.decode(block, position, first_output=0 if self._gives_logits else len(block))

    def own_rows(self) -> Floats:
        """(size, n_embd) float32 of the last block, a view that the next decode overwrites."""
        pointer = ext.llama_get_embeddings_nextn(self.handle)
        return self._view(pointer, self._size, self.n_embd)
