"""The interface of what decides how far to draft, and the one that always says the same. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match


def _certain() -> float:
    return 1.0


@dataclass(frozen=True)
class Seconds:
    """What a round's two parts took.

    sure: what probability the target gave to its likeliest token after the newest one; it is
          computed when asked for, while the round's rows are there
    """

    draft: float
    verify: float
    sure: Callable[[], float] = _certain


class DepthPolicy(Protocol):
    """Decides one round at a time: begin, keep_going after each drafted id, choose, observe.

    Where drafts are drawn, commit comes before each id, and `choose` must keep to it.
    """

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        """How many ids the heads may draft, at most `room`.

        n_past:    tokens of context
        n_waiting: rows the heads would have to catch up with
        match:     what copying would propose
        """

    def keep_going(self, draft: Draft) -> bool:
        """Whether another id is worth drafting."""

    def commit(self, prob: float) -> bool:
        """Whether the next id will be verified, whatever it turns out to be: it may be drawn then.

        Otherwise it is the head's best guess, and free to be dropped (`verify.py` says why).

        prob: the head's probability for its best guess, which tells a draw's chances too
        """

    def choose(self, draft: Draft) -> list[int]:
        """The ids to verify; they begin with the `draft.n_committed` first ones of the draft."""

    def observe(self, chosen: Sequence[int], seconds: Seconds) -> None:
        """What the target chose: the accepted ids and one of its own."""


class FixedDepth:
    """Always the same depth, from the heads alone; 0 is plain decoding.

    row_counts: how many rows may be verified together, asked in each round; any unless told
    """

    def __init__(self, depth: int, row_counts: Container[int] | None = None) -> None:
        self._depth, self._row_counts = depth, row_counts

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        return self._most(room)

    def keep_going(self, draft: Draft) -> bool:
        return True

    def commit(self, prob: float) -> bool:
        return self._row_counts is None  # no depth is ruled out afterwards

    def choose(self, draft: Draft) -> list[int]:
        return draft.ids[: self._most(len(draft.ids))]

    def _most(self, room: int) -> int:
        counts = self._row_counts
        return next(
            depth
            for depth in range(min(self._depth, room), -1, -1)
            if depth == 0 or counts is None or 1 + depth in counts
        )

    def observe(self, chosen: Sequence[int], seconds: Seconds) -> None:
        pass
