"""Drafts with a small model of the target's family, which reads the same text.

Owns the small model's context and what it has read. Knows nothing of verification.

It reads ids alone, as any model does, and proposes what it would say itself (Leviathan et al. 2023,
arXiv:2211.17192). Three things follow.

- What it drafted and the target chose stays in its memory: those cells are what they would be.
- It is a whole model, and reading a prompt takes it time. So it reads nothing before the first
  draft, and of a longer text then only the beginning and the end: without the first tokens, which
  all others attend to, a model falls apart (Xiao et al. 2023, arXiv:2309.17453). What stands
  between has no positions either. It does the same when its context is full.
- Its vocabulary may number the same spellings otherwise (`vocabulary_map.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtp_cli.engine.drafters.base import Draft, always
from mtp_cli.engine.drafters.vocabulary_map import VocabularyMap
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH, Floats, HeadContext, State

N_FIRST, N_LAST = TUNING.small_model.n_first, TUNING.small_model.n_last
N_BATCH = N_FIRST + N_LAST + 1  # the most rows it reads at once: those, and the newest
N_CTX_MIN = N_BATCH + MAX_DEPTH


class SmallModelDrafter:
    """A small model in a context of its own.

    context: of N_CTX_MIN tokens at least, or of as many as the target's
    ids:     how the two vocabularies number tokens; None where they are one
    """

    max_depth = MAX_DEPTH
    n_window = 0

    def __init__(self, context: HeadContext, ids: VocabularyMap | None = None) -> None:
        self._context = context
        self._map = ids
        self._text: list[int] = []  # what the target holds, in the small model's ids
        self._cells: list[int] = []  # what the small model's memory holds
        self._n_right = 0  # of them go on as the text does
        self._n_left_out = 0  # ids of the text after the first N_FIRST that have no cell

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        del self._text[position:]
        self._text.extend(map(self._own, ids))
        for cell in self._cells[self._n_right :]:
            place = self._place(self._n_right)
            if place >= len(self._text) or self._text[place] != cell:
                break
            self._n_right += 1

    def _own(self, target_id: int) -> int:
        return target_id if self._map is None else self._map.to_small(target_id)

    def _place(self, cell: int) -> int:
        """Where in the text a cell's id stands."""
        return cell if cell < N_FIRST else cell + self._n_left_out

    @property
    def _n_missing(self) -> int:
        return len(self._text) - self._n_left_out - self._n_right

    @property
    def n_waiting(self) -> int:
        return min(self._n_missing, N_FIRST + N_LAST)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        draft = Draft()
        depth = min(depth, self.max_depth)
        if depth <= 0 or not self._text:
            return draft
        n_cells = len(self._text) - self._n_left_out + depth
        if self._n_missing > N_FIRST + N_LAST or n_cells > self._context.n_ctx:
            self._leave_out()
        self._read(newest)
        self._take(draft, propose)
        while len(draft.ids) < depth and keep_going(draft):
            self._decode([self._own(draft.ids[-1])])
            self._take(draft, propose)
        return draft

    def _leave_out(self) -> None:
        """Keep of the text its first ids, and the last N_LAST."""
        self._n_right = min(self._n_right, N_FIRST)
        self._n_left_out = max(0, len(self._text) - N_FIRST - N_LAST)

    def _read(self, newest: int) -> None:
        """What of the text has no cell yet, and the newest id."""
        if self._n_right < len(self._cells) and not self._context.remove_from(self._n_right):
            self._context.clear()
            self._n_right = 0
            self._leave_out()
        del self._cells[self._n_right :]
        first = self._text[self._n_right : N_FIRST]
        rest = self._text[self._place(max(self._n_right, N_FIRST)) :]
        self._decode([*first, *rest, self._own(newest)])
        self._n_right = len(self._cells) - 1

    def _decode(self, ids: list[int]) -> None:
        """Logits after the last one."""
        self._context.decode(ids, len(self._cells), first_output=len(ids) - 1)
        self._cells.extend(ids)

    def _take(self, draft: Draft, propose: Propose) -> None:
        logits = self._context.logits()[0]
        draft.take(logits if self._map is None else self._map.row(logits), propose)

    def truncate(self, n_past: int) -> None:
        del self._text[n_past:]
        if n_past < self._place(N_FIRST):  # what was left out may be another text now
            self._n_left_out = 0
            self._n_right = min(self._n_right, N_FIRST)
        self._n_right = min(self._n_right, n_past - self._n_left_out)

    def save(self) -> State:
        return {
            "context": self._context.save(),
            "places": np.array([self._n_right, self._n_left_out], np.int64),
            "text": np.array(self._text, np.int32),
            "cells": np.array(self._cells, np.int32),
        }

    def restore(self, state: State) -> None:
        self._n_right, self._n_left_out = state["places"].tolist()
        self._text, self._cells = state["text"].tolist(), state["cells"].tolist()
        if not self._context.restore(state["context"]):
            self._cells, self._n_right, self._n_left_out = [], 0, 0  # it reads the text again

    def close(self) -> None:
        self._context.close()
