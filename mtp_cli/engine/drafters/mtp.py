"""Drafts with multi-token prediction heads: in the model's file or beside it, reused or chained.

Owns the head's context and the rows it still has to read. Knows nothing of verification, or of what
runs the head.

The head at position p reads the token x_p and the target's hidden row of position p - 1, and
predicts x_{p+1} (DeepSeek-V3, arXiv:2412.19437, section 2.2). Three things follow.

- Catch-up: accepted tokens must be in the head's KV with the target's rows, not with the rows the
  head made up while drafting. Those cells are dropped, and the true rows go in together with the
  next draft's first step: one pass, logits on its last row only.
- Draft step k > 1 reads the token just drafted and the head's own output row.
- The head's KV need not begin where the target's does: of a prompt it reads the last rows only,
  and when its context is full it forgets the older half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtp_cli.engine.drafters.base import Draft, always, with_rows
from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.drafters.reused import ReusedSteps
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH, N_OUTPUTS, Floats, HeadContext, State

N_WAITING, N_FORGOTTEN = TUNING.heads.n_waiting, TUNING.heads.n_forgotten
N_CTX = TUNING.heads.n_ctx
N_BATCH = N_WAITING + MAX_DEPTH + 1  # the most rows of one catch-up


class _Waiting:
    """Rows the head has not read yet: consecutive positions, each a token and a hidden row."""

    def __init__(self, n_embd: int) -> None:
        self._hidden = np.empty((N_BATCH, n_embd), np.float32)
        self.tokens: list[int] = []
        self.position = 0

    @property
    def end(self) -> int:
        return self.position + len(self.tokens)

    @property
    def hidden(self) -> Floats:
        return self._hidden[: len(self.tokens)]

    def restart(self, position: int) -> None:
        self.tokens = []
        self.position = position

    def hold(self, position: int, tokens: list[int], hidden: Floats) -> None:
        self.position, self.tokens = position, tokens
        self._hidden[: len(tokens)] = hidden

    def append(self, token: int, hidden: Floats) -> None:
        if len(self.tokens) == N_WAITING:
            self._forget_oldest(N_FORGOTTEN)
        self._hidden[len(self.tokens)] = hidden
        self.tokens.append(token)

    def _forget_oldest(self, n: int) -> None:
        self._hidden[: len(self.tokens) - n] = self._hidden[n : len(self.tokens)].copy()
        del self.tokens[:n]
        self.position += n

    def keep_before(self, position: int) -> None:
        del self.tokens[max(0, position - self.position) :]
        self.position = min(self.position, position)


class MtpDrafter:
    """Heads of one model, run in an MTP context of their own.

    ids:       which ids the heads read and draft in; None where they are the target's
    scale:     (n_embd,) float32 that every target row is multiplied with to become the row the
               head was trained on, None for as it is
    n_chained: 1 for one head reused at every step, else the number of heads, one per step
    """

    def __init__(
        self,
        context: HeadContext,
        *,
        ids: HeadIds | None = None,
        scale: Floats | None = None,
        n_chained: int = 1,
    ) -> None:
        self._context = context
        self._scale = scale
        self._ids = HeadIds() if ids is None else ids
        self._is_chained = n_chained > 1
        self.max_depth = n_chained if self._is_chained else MAX_DEPTH
        self.n_window = N_OUTPUTS
        self._n_heads = n_chained
        self._reused = ReusedSteps(context)
        self._waiting = _Waiting(context.n_embd)
        self._carry: Floats | None = None  # the target's row of the position before the next one
        self._next = 0  # the next position the target will be seen to decode
        self._n_read = 0  # the head's KV holds true rows before this position
        self._n_forgotten = 0  # and none before this one

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        self._ids.hold(ids, position)
        if hidden is None:
            return
        ids, position = with_rows(ids, position, hidden)
        if position != self._next:  # rows were left out, as in a prompt
            self._carry = None
        for token, row in zip(ids, hidden, strict=True):
            if self._carry is None:
                self._waiting.restart(position + 1)
            elif position >= max(self._n_read, self._waiting.end):
                self._waiting.append(token, self._carry)
            self._carry = row.copy() if self._scale is None else row * self._scale
            position += 1
        self._next = position

    @property
    def n_waiting(self) -> int:
        return len(self._waiting.tokens)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        depth = min(depth, self.max_depth, self._context.n_ctx - self.n_waiting - 1)
        if depth <= 0 or self._carry is None:
            return Draft()
        self._ids.hold([newest], self._next)
        self._waiting.append(newest, self._carry)
        tokens, hidden = self._ids.own(self._waiting.tokens), self._waiting.hidden
        start = self._waiting.position
        # The rows of the last draft were the head's own. After rows it was never shown it starts
        # anew: llama.cpp takes no gap in the positions.
        self._drop_from(start if start <= self._n_read else 0)
        self._make_room(self._waiting.end + depth)
        self._n_read = self._waiting.end
        draft = Draft()
        run = self._chained_steps if self._is_chained else self._reused.run
        run(
            tokens,
            hidden,
            start,
            take=lambda: self._ids.take(draft, propose, self._context),
            is_wanted=lambda: len(draft.ids) < depth and keep_going(draft),
        )
        self._waiting.restart(self._n_read)
        return draft

    def _make_room(self, end: int) -> None:
        """Forget old rows, if the ones up to position `end` would not fit."""
        if self._waiting.position > self._n_read:  # the head has just started anew
            self._n_forgotten = self._waiting.position
        if end - self._n_forgotten <= self._context.n_ctx:
            return
        self._n_forgotten = max(self._n_forgotten, end - self._context.n_ctx // 2)
        if self._n_forgotten >= self._waiting.position or not self._context.remove_before(
            self._n_forgotten
        ):
            self._context.clear()
            self._n_forgotten = self._waiting.position

    def _chained_steps(
        self,
        tokens: list[int],
        hidden: Floats,
        start: int,
        take: Callable[[], int],
        is_wanted: Callable[[], bool],
    ) -> None:
        """One head per step: head k has its own layer of KV and reads all rows again.

        Heads that draft nothing read the true rows too, or theirs would be missing in the next
        draft.
        """
        tokens = list(tokens)
        is_drafting = True
        for head in range(self._n_heads):
            self._drop_from(start)
            self._context.use_head(head)
            self._context.decode(tokens, start, first_output=len(tokens) - 1, hidden=hidden)
            if is_drafting:
                token = take()
                row = self._context.hidden()
                is_drafting = row is not None and is_wanted()
                if is_drafting:
                    tokens.append(token)
                    hidden = np.concatenate([hidden, row])

    def _drop_from(self, position: int) -> None:
        if position < self._n_forgotten or not self._context.remove_from(position):
            self._context.clear()  # the head only loses what it remembers of the text

    def truncate(self, n_past: int) -> None:
        self._ids.truncate(n_past)
        if n_past < self._next:
            self._carry = None
            self._next = n_past
        self._waiting.keep_before(n_past)
        if n_past < self._n_read:
            self._drop_from(n_past)
            self._n_read = n_past

    def save(self) -> State:
        waiting, carry = self._waiting, self._carry
        places = (waiting.position, self._next, self._n_read, self._n_forgotten)
        return {
            "context": self._context.save(),
            "places": np.array(places, np.int64),
            "tokens": np.array(waiting.tokens, np.int32),
            "hidden": waiting.hidden.copy(),
            "carry": np.array([] if carry is None else [carry], np.float32),
            **self._ids.save(),
        }

    def restore(self, state: State) -> None:
        self._ids.restore(state)
        position, self._next, self._n_read, self._n_forgotten = state["places"].tolist()
        if not self._context.restore(state["context"]):
            self._n_read = self._n_forgotten = 0  # it starts anew
        self._waiting.hold(position, state["tokens"].tolist(), state["hidden"])
        self._carry = next(iter(state["carry"]), None)

    def close(self) -> None:
        self._context.close()
        self._ids.close()
