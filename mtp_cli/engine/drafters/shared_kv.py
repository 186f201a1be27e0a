"""Drafts with an assistant: a small model that reads the target's keys and values.

Owns the assistant's context, which has no memory of its own, and the one hidden row a draft starts
from. Knows nothing of verification, and changes nothing that the target remembers.

Gemma 4's assistant has queries only. Its sliding layers attend to the keys of the target's last
but one layer, its full ones to those of the last. Each step reads a token's embedding in the
target's own table beside a hidden row: the target's for the newest token, its own output row for
the drafted ones. All steps stand at the position of the newest token (transformers'
SinglePositionMultiTokenCandidateGenerator; llama.cpp's common/speculative.cpp). So there is no
catch-up, and a prompt costs it nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mtp_cli.engine.drafters.base import Draft, always
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.types import MAX_DEPTH, Floats, HeadContext, State


class SharingContext(HeadContext, Protocol):
    """A context over another one's memory."""

    def next_position(self) -> int: ...


class SharedKvDrafter:
    """An assistant in a context that shares the target's memory.

    context: closed before the target's
    """

    max_depth = MAX_DEPTH
    n_window = 1
    n_waiting = 0

    def __init__(self, context: SharingContext) -> None:
        self._context = context
        self._row: Floats | None = None  # (n_embd,), of the last position the target has decoded
        self._next = 0  # the position after it

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        if hidden is None:
            return
        self._row = hidden[-1].copy()
        self._next = position + len(ids)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        draft = Draft()
        row, token = self._row, newest
        # Where the target's memory ends is where llama.cpp lets a reader of it stand.
        position = self._context.next_position()
        depth = min(depth, self.max_depth, self._context.n_ctx - position - 1)
        while row is not None and len(draft.ids) < depth:
            if draft.ids and not keep_going(draft):
                break
            self._context.decode([token], position, hidden=row[np.newaxis])
            token = draft.take(self._context.logits()[0], propose)
            rows = self._context.hidden()
            row = None if rows is None else rows[0]
        return draft

    def truncate(self, n_past: int) -> None:
        """The target's memory is cut by its owner; only the row can be out of date here."""
        if n_past < self._next:
            self._row = None
            self._next = n_past

    def save(self) -> State:
        """The row alone: the memory is the target's."""
        rows = [] if self._row is None else [self._row]
        return {"next": np.array(self._next), "row": np.array(rows, np.float32)}

    def restore(self, state: State) -> None:
        self._next, self._row = int(state["next"]), next(iter(state["row"]), None)

    def close(self) -> None:
        self._context.close()
