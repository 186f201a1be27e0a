"""Drafts with independent heads: each predicts its own offset from the same rows.

Owns the heads' contexts and the rows they still have to read. Knows nothing of verification.

Multi-token prediction as in Gloeckle et al. 2024 (arXiv:2404.19737; the published llama/model.py):
the target's last layer is the head of the next token, and beside it stand others, each one layer
over the same rows, with keys and values of its own, before the shared norm and output. Head k
(from 0) at position p reads the row that the target's last layer reads there, and predicts
x_{p+2+k}. Three things follow.

- The newest row known, that of the token before the newest, has the whole draft in it: head k
  gives id k. No head reads what another drafted, and none reads a token.
- All its KV holds are rows of true tokens: there is nothing to take back after a draft.
- A head that is not asked need not run. It reads what it missed when its turn comes, as long as
  the rows are still kept; after that it starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtp_cli.engine.drafters.base import Draft, always, with_rows
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.types import N_OUTPUTS, Floats, HeadContext, State
from mtp_cli.head_file import DraftVocabulary

N_KEPT = 64  # rows kept for heads to catch up with


class _Rows:
    """The target's last rows, of consecutive positions from `start` on; at most N_KEPT."""

    def __init__(self, n_embd: int) -> None:
        self._rows = np.empty((N_KEPT, n_embd), np.float32)
        self.start = self.end = 0

    def append(self, position: int, rows: Floats) -> None:
        """rows: (n, n_embd); after a gap in the positions only they are kept."""
        if position != self.end:
            self.restart(position)
        n_old, n_new = self.end - self.start, len(rows)
        if n_new >= N_KEPT:
            self._rows[:] = rows[-N_KEPT:]
            self.end = position + n_new
            self.start = self.end - N_KEPT
            return
        n_forgotten = max(0, n_old + n_new - N_KEPT)
        self._rows[: n_old - n_forgotten] = self._rows[n_forgotten:n_old].copy()
        self.start += n_forgotten
        self.end += n_new
        self._rows[n_old - n_forgotten : n_old - n_forgotten + n_new] = rows

    def restart(self, position: int) -> None:
        self.start = self.end = position

    def since(self, position: int) -> Floats:
        return self._rows[position - self.start : self.end - self.start]

    def truncate(self, position: int) -> None:
        self.end = min(self.end, position)
        self.start = min(self.start, position)


class _Head:
    """One head's context, and how far it has read: its KV holds rows before `n_read`."""

    def __init__(self, context: HeadContext) -> None:
        self.context = context
        self.n_read = 0

    def next_row(self, rows: _Rows) -> int:
        """The position it reads on from; llama.cpp takes no gap, so after one it starts anew."""
        return self.n_read if rows.start <= self.n_read <= rows.end else rows.start

    def n_missed(self, rows: _Rows) -> int:
        """How many rows it has to read besides the newest."""
        return max(0, rows.end - self.next_row(rows) - 1)

    def logits(self, rows: _Rows) -> Floats:
        """(n_draft,) float32: what it predicts from the newest row, once it has read them all."""
        start = self.next_row(rows)
        if start != self.n_read:
            self.context.clear()
        new = rows.since(start)
        self.context.decode([0] * len(new), start, first_output=len(new) - 1, hidden=new)
        self.n_read = rows.end
        logits: Floats = self.context.logits()[0]
        return logits

    def truncate(self, n_past: int) -> None:
        if n_past < self.n_read:
            if self.context.remove_from(n_past):
                self.n_read = n_past
            else:
                self.context.clear()
                self.n_read = 0

    def close(self) -> None:
        self.context.close()


class IndependentDrafter:
    """Heads that each draft one place; their contexts are its own.

    contexts:   of one model each, in the order of what they predict
    vocabulary: the heads' trimmed vocabulary, None when it is the target's
    """

    def __init__(
        self, contexts: Sequence[HeadContext], vocabulary: DraftVocabulary | None = None
    ) -> None:
        self._heads = [_Head(context) for context in contexts]
        self._draft_ids = None if vocabulary is None else vocabulary.draft_ids
        self._rows = _Rows(contexts[0].n_embd)
        self._n_ctx = min(context.n_ctx for context in contexts)
        self.max_depth = len(contexts)
        self.n_window = N_OUTPUTS

    @property
    def n_waiting(self) -> int:
        """The first head's; others may have missed more, which a draft counts (`n_behind`)."""
        return self._heads[0].n_missed(self._rows)

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        if hidden is not None:
            self._rows.append(with_rows(ids, position, hidden)[1], hidden)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        draft = Draft()
        has_drafted = self._heads[0].next_row(self._rows) == self._rows.end  # from the newest row
        if has_drafted or self._rows.end > self._n_ctx:
            return draft
        for head in self._heads[: max(0, depth)]:
            if draft.ids:
                if not keep_going(draft):
                    break
                draft.n_behind += head.n_missed(self._rows)
            draft.take(head.logits(self._rows), propose, self._draft_ids)
        return draft

    def truncate(self, n_past: int) -> None:
        self._rows.truncate(n_past)
        for head in self._heads:
            head.truncate(n_past)

    def save(self) -> State:
        read = [head.n_read for head in self._heads]
        return {
            "places": np.array([self._rows.start, *read], np.int64),
            "rows": self._rows.since(self._rows.start).copy(),
            **{f"context.{k}": head.context.save() for k, head in enumerate(self._heads)},
        }

    def restore(self, state: State) -> None:
        start, *read = state["places"].tolist()
        self._rows.restart(start)
        self._rows.append(start, state["rows"])
        for k, (head, n_read) in enumerate(zip(self._heads, read, strict=True)):
            head.n_read = n_read if head.context.restore(state[f"context.{k}"]) else 0

    def close(self) -> None:
        for head in self._heads:
            head.close()
