"""Drafts with an EAGLE-3 drafter, by llama.cpp's graph of it (arXiv:2503.01840).

A drafter of this kind is a head that fuses rows of three layers, in a file that llama.cpp itself
loads, so `fused.py` drafts with it. Owns what is not as in our own heads: llama.cpp fuses the rows,
and counts a row by the position of the target's row, which is one less than its token's. Knows
nothing of verification, or of what is drafted when.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from mtp_cli.engine.backend.encoder import EncoderContext
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters.fused import FusedDrafter
from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.drafters.mtp import N_BATCH, N_CTX
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.engine.types import Floats
from mtp_cli.head_file import Fused

_N_ROWS_MIN = 2  # however small the context: two rows show which one's output a decode gives
_N_BATCH_MAX = 128  # rows of a prompt that it reads at once


class Eagle3Context(EncoderContext):
    """A drafter's context, with positions as our drafters count them: a token's own, from 1 on."""

    def decode(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        first_output: int = 0,
        hidden: Floats | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> None:
        super().decode(
            tokens, position - 1, first_output=first_output, hidden=hidden, is_stopped=is_stopped
        )

    def remove_from(self, position: int) -> bool:
        return super().remove_from(max(0, position - 1))

    def remove_before(self, position: int) -> bool:
        return super().remove_before(max(0, position - 1))


class Eagle3Fusion:
    """The encoder of a drafter's context, which closes it."""

    def __init__(self, context: EncoderContext) -> None:
        self.width = context.width
        self.rows = context.encode

    def use_threads(self, n_threads: int) -> None:
        """They are the context's."""

    def close(self) -> None:
        """It is the context's."""


def open_eagle3(
    target: Target, heads: Header, fused: Fused, n_threads: int, n_gpu_layers: int
) -> tuple[FusedDrafter, Eagle3Context]:
    """A drafter that was found to fit, and its context; MtpError where its vocabulary does not."""
    target.check_rows()
    n_ctx = max(_N_ROWS_MIN, min(N_CTX + fused.prompt_rows, target.n_ctx))
    n_batch = max(_N_ROWS_MIN, min(max(N_BATCH, fused.prompt_rows), _N_BATCH_MAX, n_ctx))
    model = Model(heads.path, n_gpu_layers=n_gpu_layers)
    with contextlib.ExitStack() as opened:
        opened.callback(model.close)
        target.check_vocabulary(model)
        context = Eagle3Context(
            model,
            target.context,
            width=len(fused.layers) * target.model.n_embd,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_threads=n_threads,
            owns_model=True,
        )
        opened.pop_all()
    drafter = FusedDrafter(
        context,
        Eagle3Fusion(context),
        ids=HeadIds(),
        prompt_rows=fused.prompt_rows,
        n_batch=n_batch,
    )
    return drafter, context
