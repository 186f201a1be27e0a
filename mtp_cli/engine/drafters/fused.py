"""Drafts with a head that fuses rows of several layers, and that may read a prompt.

Owns the target's last rows, and how many the head has read. Knows nothing of verification, or
of what runs the head.

It is a head as in `mtp.py`: at position p it reads the token x_p and, made of the rows that chosen
layers of the target read at p - 1, one hidden row; later steps of a draft read the head's own rows.
Such rows are there for every token that the target decodes, at no cost. Three things follow.

- A prompt's last rows are read before the answer. Of rows that draft nothing only keys and values
  are needed, in a compiled head a fiftieth of what a row costs the target.
- No row is forgotten while nothing is drafted: a head that has read so many does not start anew.
- Rows are kept, raw, as far back as the head remembers: where a text is taken back and goes on
  otherwise, it goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtp_cli.engine.drafters.base import Draft, always, with_rows
from mtp_cli.engine.drafters.cells import Cells
from mtp_cli.engine.drafters.fusion import Fusion
from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.drafters.mtp import N_WAITING
from mtp_cli.engine.drafters.reused import ReusedSteps
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.types import MAX_DEPTH, Floats, HeadContext, Ids, State


class _Text:
    """The target's last tokens and their rows: positions from `start` to before `end`.

    n_kept: how many at most; older ones are written over
    """

    def __init__(self, n_kept: int, width: int) -> None:
        self._tokens = np.zeros(n_kept, np.int32)
        self._rows = np.zeros((n_kept, width), np.float32)
        self.start = self.end = 0

    def append(self, tokens: Sequence[int], rows: Floats) -> None:
        """rows: (n_tokens, width), at most n_kept"""
        places = self._places(self.end, self.end + len(tokens))
        self._tokens[places] = tokens
        self._rows[places] = rows
        self.end += len(tokens)
        self.start = max(self.start, self.end - len(self._tokens))

    def restart(self, position: int) -> None:
        self.start = self.end = position

    def truncate(self, position: int) -> None:
        self.end = min(self.end, position)
        self.start = min(self.start, position)

    def tokens(self, start: int, end: int) -> list[int]:
        found: list[int] = self._tokens[self._places(start, end)].tolist()
        return found

    def rows(self, start: int, end: int) -> Floats:
        """A view that what is appended next overwrites, or an array."""
        found: Floats = self._rows[self._places(start, end)]
        return found

    def _places(self, start: int, end: int) -> slice | Ids:
        n_kept = len(self._tokens)
        first, last = start % n_kept, (end - 1) % n_kept
        if first <= last:
            return slice(first, first + end - start)
        places: Ids = np.arange(start, end, dtype=np.int32) % n_kept
        return places


class FusedDrafter:
    """One head, reused at every step, in a context of its own.

    fusion:      what makes rows of several layers one
    ids:         which ids the head reads and drafts in
    prompt_rows: how many of a prompt's last rows it reads; 0 for the last one
    n_batch:     the most rows that context and fusion take at once
    """

    max_depth = MAX_DEPTH

    def __init__(
        self,
        context: HeadContext,
        fusion: Fusion,
        *,
        ids: HeadIds,
        prompt_rows: int,
        n_batch: int,
    ) -> None:
        self._context, self._fusion, self._ids = context, fusion, ids
        self._steps = ReusedSteps(context)
        self.n_window = max(1, prompt_rows)
        self._n_batch = n_batch
        self._text = _Text(max(context.n_ctx, n_batch), fusion.width)
        self._cells = Cells(context)

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        self._ids.hold(ids, position)
        if hidden is None:
            return
        ids, position = with_rows(ids, position, hidden)
        if position != self._text.end:  # rows were left out, as in a prompt
            self._text.restart(position)
        for start in range(0, len(ids), self._n_batch):
            part = ids[start : start + self._n_batch]
            self._text.append(part, hidden[start : start + self._n_batch])
            if self.n_waiting >= min(N_WAITING, self._n_batch):
                self._read(self._text.end)

    @property
    def _next_cell(self) -> int:
        """The first position to read: a token's own, whose row is that of the position before."""
        position = min(self._cells.end, self._text.end)
        return position if position > self._text.start else self._text.start + 1

    @property
    def n_waiting(self) -> int:
        return max(0, self._text.end - self._next_cell)

    def _read(self, end: int) -> None:
        """Remember what stands before position `end`."""
        start = self._next_cell
        self._cells.make_place(start, end)
        for first in range(start, end, self._n_batch):
            last = min(first + self._n_batch, end)
            rows = self._fusion.rows(self._text.rows(first - 1, last - 1))
            self._context.read(self._ids.own(self._text.tokens(first, last)), first, rows)
        self._cells.end = end

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        draft = Draft()
        depth = min(depth, self.max_depth, self._context.n_ctx - self.n_waiting - 1)
        start, end = self._next_cell, self._text.end
        if depth <= 0 or self._text.start == end:
            return draft
        self._ids.hold([newest], end)
        self._cells.make_place(start, end + 1 + depth)
        self._steps.run(
            self._ids.own([*self._text.tokens(start, end), newest]),
            self._fusion.rows(self._text.rows(start - 1, end)),
            start,
            take=lambda: self._ids.take(draft, propose, self._context),
            is_wanted=lambda: len(draft.ids) < depth and keep_going(draft),
        )
        self._cells.end = end + 1
        return draft

    def truncate(self, n_past: int) -> None:
        self._ids.truncate(n_past)
        self._text.truncate(n_past)
        self._cells.truncate(n_past)

    def save(self) -> State:
        start, end = self._text.start, self._text.end
        return {
            "context": self._context.save(),
            "places": np.array([start, self._cells.end, self._cells.first], np.int64),
            "tokens": np.array(self._text.tokens(start, end), np.int32),
            "rows": self._text.rows(start, end).copy(),
            **self._ids.save(),
        }

    def restore(self, state: State) -> None:
        self._ids.restore(state)
        start, self._cells.end, self._cells.first = state["places"].tolist()
        if not self._context.restore(state["context"]):
            self._cells.end = self._cells.first = 0  # it reads the rows that are kept again
        self._text.restart(start)
        self._text.append(state["tokens"].tolist(), state["rows"])

    def close(self) -> None:
        self._context.close()
        self._fusion.close()
        self._ids.close()
