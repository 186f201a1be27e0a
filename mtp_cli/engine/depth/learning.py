"""Learns what rounds cost while an answer is given, and decides how far to draft once it knows.

Owns the order in which row counts are tried. A decode of so many rows is a round of the answer like
any other, with a draft that would not be worth it: nothing is decoded that is thrown away, and no
memory need drop anything that a round would not. What measuring costs beyond plain rounds is a
bounded share of the time. Without heads it waits for something to copy, and few counts are enough.
Knows neither clock nor models.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.depth.cost import CostTable, interpolated
from mtp_cli.engine.depth.exactness import Exactness
from mtp_cli.engine.depth.policy import DepthPolicy, Seconds
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.tuning import TUNING, Tuning

OnKnown = Callable[[CostTable, bool], DepthPolicy]


@dataclass
class _Seen:
    """What rounds took.

    singles, switched: seconds of a row after a row, and after another number of rows
    ratios:   rows -> how many times a row such a decode took, after another of as many
    excess:   seconds that a decode of rows took longer after another number of them
    drafts:   rows the heads read besides the newest, steps of the draft, seconds
    has_blocks: a draft has one step, however many its ids
    """

    singles: list[float] = field(default_factory=list)
    ratios: dict[int, list[float]] = field(default_factory=dict)
    excess: list[float] = field(default_factory=list)
    drafts: list[tuple[int, int, float]] = field(default_factory=list)
    has_blocks: bool = False


@dataclass(frozen=True)
class _Shape:
    """A round to be tried: how many rows are verified, and how many ids heads draft for it."""

    n_rows: int
    n_drafted: int = 0


class Learning:
    """Plain decoding that tries other rounds in between, until costs are known; then its successor.

    n_max:     rows that can be verified together
    n_drafted: ids that the heads can draft; 0 without heads
    exactness: which counts may be tried; all without. Without refused ones a table is partial, and
               of use only where they are refused
    n_threads: of a decode now; with another number, what was seen is of another machine
    """

    def __init__(
        self,
        n_max: int,
        n_drafted: int,
        *,
        exactness: Exactness | None = None,
        n_threads: Callable[[], int] = lambda: 1,
        tuning: Tuning = TUNING,
    ) -> None:
        self._tuning = tuning.learning
        counts = tuning.calibration.counts if n_drafted > 0 else self._tuning.copied
        self._counts = [n for n in counts if 1 < n <= n_max]
        self._n_often = tuning.calibration.n_often
        self._n_max, self._n_drafted = n_max, n_drafted
        self._exactness = exactness
        self._successor: DepthPolicy | None = None
        self._n_threads, self._n_threads_seen = n_threads, n_threads()
        self._seen = _Seen()
        self._shapes = self._order(self._counts)
        self._shape, self._last_rows = _Shape(1), 1
        self._waiting_ratio: tuple[int, float, float] | None = None
        self._total_s = self._extra_s = 0.0
        self._said: dict[int, None] = {}  # different ids that answers said, the newest last
        self._n_read = 0
        self._draft = Draft()
        self._next: _Shape | None = next(self._shapes)

    def _order(self, counts: Sequence[int]) -> Iterator[_Shape]:
        """The rounds to try, each followed by single ones, which it is held to.

        Small counts decide most: they come twice in a row, for the second is like most rounds, and
        what the first takes longer is the switch's. Of larger ones, which are dear, one is enough:
        what a switch takes is known by then.
        """
        often = [n for n in counts if n <= self._n_often]
        for n_drafted in dict.fromkeys(min(n, self._n_drafted) for n in (self._tuning.deep, 1)):
            for n_rows in often:
                yield from (_Shape(n_rows, min(n_drafted, n_rows - 1)),) * 2
                yield from (_Shape(1),) * 2
        if self._n_drafted > 0 and often:
            for _ in range(2):
                yield from (_Shape(1),) * self._tuning.n_resting
                yield _Shape(2, 1)
        for n_rows in (n for n in counts if n > self._n_often):
            yield _Shape(n_rows, min(self._tuning.deep, self._n_drafted))
            yield from (_Shape(1),) * 2

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        if self._successor is not None:
            return self._successor.begin(room, n_past, n_waiting, match)
        self._n_read = n_waiting
        self._match = match
        self._shape = self._affordable(room)
        return self._shape.n_drafted

    def _affordable(self, room: int) -> _Shape:
        """The next shape, or a single row while it may not or cannot be tried."""
        while self._next is not None and self._is_refused(self._next.n_rows):
            self._next = next(self._shapes, None)
        shape = self._next
        if shape is None or shape.n_rows == 1:
            return _Shape(1)
        allowed_s = self._tuning.first_s + self._tuning.share * self._total_s
        is_second = shape.n_rows == self._last_rows  # a pair is not parted
        is_allowed = self._exactness is None or shape.n_rows in self._exactness
        can = is_allowed and shape.n_rows - 1 <= room and bool(self._seen.singles)
        may = self._extra_s <= allowed_s and (self._n_drafted > 0 or bool(self._match.ids))
        return shape if can and (is_second or may) else _Shape(1)

    def _is_refused(self, n_rows: int) -> bool:
        return self._exactness is not None and self._exactness.is_refused(n_rows)

    def keep_going(self, draft: Draft) -> bool:
        return self._successor is None or self._successor.keep_going(draft)

    def commit(self, prob: float) -> bool:
        return self._successor is not None and self._successor.commit(prob)

    def choose(self, draft: Draft) -> list[int]:
        """The draft, the copy after it, and other ids that were said to make up the number.

        Rows of an id that is there already would cost too little where experts are: they choose
        the same ones.
        """
        if self._successor is not None:
            return self._successor.choose(draft)
        self._draft = draft
        n = self._shape.n_rows - 1
        if n == 0:
            return []
        proposed = [*draft.ids, *self._match.ids[len(draft.ids) :]]
        newest, *others = reversed(self._said)
        proposed += [id_ for id_ in others if id_ not in proposed] or [newest]
        return [*proposed, *proposed[-1:] * n][:n]

    def observe(self, chosen: Sequence[int], seconds: Seconds) -> None:
        if self._successor is not None:
            self._successor.observe(chosen, seconds)
            return
        for id_ in chosen:
            self._said.pop(id_, None)
            self._said[id_] = None
        n_rows = self._shape.n_rows
        if self._draft.ids:
            n_read = self._n_read + self._draft.n_behind
            n_steps = 1 if self._draft.is_block else len(self._draft.ids)
            self._seen.drafts.append((n_read, n_steps, seconds.draft))
            self._seen.has_blocks = self._draft.is_block
        if self._is_another_machine():
            self._start_anew(n_rows)
            return
        self._account(n_rows, seconds, len(chosen))
        self._note(n_rows, seconds.verify)
        if self._next is not None and n_rows == self._next.n_rows:
            self._next = next(self._shapes, None)
        self._last_rows = n_rows
        if self._next is None:
            missing = [n for n in self._counts if self._is_open(n)]
            self._shapes = self._order(missing)
            self._next = next(self._shapes, None) if missing else None
        if self._next is None:
            self._successor = self._on_known(*self._table())

    def open_answer(self, on_known: OnKnown) -> None:
        """Another prompt was read, whose last row was one alone.

        on_known: told the table, and whether it is partial; gives who decides from then on
        """
        self._last_rows = 1
        self._on_known = on_known

    def _is_another_machine(self) -> bool:
        before, self._n_threads_seen = self._n_threads_seen, self._n_threads()
        return before != self._n_threads_seen

    def _start_anew(self, n_rows: int) -> None:
        """Forget what rounds took, not what learning has cost; the last one had n_rows."""
        self._seen, self._waiting_ratio, self._last_rows = _Seen(), None, n_rows
        self._shapes = self._order(self._counts)
        self._next = next(self._shapes)

    def _is_open(self, n_rows: int) -> bool:
        """Whether a count may still be tried: one pair was parted by an answer's end, say."""
        return n_rows not in self._seen.ratios and not self._is_refused(n_rows)

    def _account(self, n_rows: int, seconds: Seconds, n_tokens: int) -> None:
        """What plain rounds would have taken for the same tokens is not measuring's to pay."""
        spent_s = seconds.draft + seconds.verify
        self._total_s += spent_s
        if n_rows > 1:
            self._extra_s += spent_s - n_tokens * statistics.median_low(self._seen.singles)

    def _note(self, n_rows: int, seconds: float) -> None:
        seen = self._seen
        if n_rows != self._last_rows:
            self._switched_s = seconds
            if n_rows > self._n_often:
                self._waiting_ratio = n_rows, seconds - self._switch_s(), seen.singles[-1]
            return
        if n_rows > 1:
            self._waiting_ratio = n_rows, seconds, seen.singles[-1]
            seen.excess.append(self._switched_s - seconds)
            return
        if self._waiting_ratio is not None:
            n_before, many_s, single_s = self._waiting_ratio
            seen.ratios.setdefault(n_before, []).append(2 * many_s / (single_s + seconds))
            seen.excess.append(self._switched_s - seconds)
            self._waiting_ratio = None
        seen.singles.append(seconds)

    def _switch_s(self) -> float:
        return max(0.0, statistics.median(self._seen.excess)) if self._seen.excess else 0.0

    def _table(self) -> tuple[CostTable, bool]:
        """What was seen as a table, and whether counts that were refused are missing in it."""
        one_s = statistics.median_low(self._seen.singles)
        ratios = self._seen.ratios
        counts = [n for n in self._counts if n in ratios]
        seconds = [one_s, *(one_s * statistics.median_low(ratios[n]) for n in counts)]
        target_s = interpolated([1, *counts], seconds, self._n_max)
        growth_s = (0.0,) * self._n_max
        return CostTable(
            target_s, growth_s, *self._heads(), switch_s=self._switch_s()
        ), counts != self._counts

    def _heads(self) -> tuple[float, float, float]:
        """Seconds of the first step, of each row of catch-up and of each further step."""
        if not self._seen.drafts:
            return CostTable.first_s, CostTable.row_s, CostTable.step_s
        read, drafted, seconds = map(np.array, zip(*self._seen.drafts, strict=True))
        rested = read >= self._tuning.n_resting
        one, deep = drafted == 1, drafted > 1
        row_s = 0.0
        if (one & rested).any() and (one & ~rested).any():
            longer, shorter = _median(seconds[one & rested]), _median(seconds[one & ~rested])
            n_more = _median(read[one & rested]) - _median(read[one & ~rested])
            row_s = max(0.0, (longer - shorter) / max(1.0, n_more))
        seconds = seconds - row_s * read
        first_s = max(_median(seconds[one] if one.any() else seconds), 1e-6)
        if not deep.any():
            return first_s, row_s, 0.0 if self._seen.has_blocks else first_s
        steps_s = _median(seconds[deep]) - first_s
        return first_s, row_s, max(steps_s / (_median(drafted[deep]) - 1), 1e-6)


def _median(values: npt.NDArray[Any]) -> float:
    return float(np.median(values))
