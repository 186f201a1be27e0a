"""What a round costs here: measured once, then corrected by every round.

Owns the prediction of seconds from row counts, draft steps and context length. Pure: knows
neither the clock nor the models; `calibrate.py` makes the first measurements.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass

_N_REMEMBERED = 7  # ratios whose median is believed: three stalled rounds in a row do not count
_FOLLOW = 0.3  # how far a level moves towards that median in one round
_FOLLOW_ROWS = 0.04  # the same for one row count alone, apart from the level of all
_MOST_OFF = 1.5  # a row count is never held to be further from its measurement than this


@dataclass(frozen=True)
class CostTable:
    """Measured seconds on one machine.

    target_s: (n_max,) a target decode of 1, 2, ... rows with a short context, verification included
    growth_s: (n_max,) what each token of context adds to that
    first_s:  the head's first draft step, which also reads the newest row
    row_s:    each further row of catch-up in that step
    step_s:   each further draft step
    exact:    row counts whose logits are bit-identical to those of single rows
    """

    target_s: tuple[float, ...]
    growth_s: tuple[float, ...]
    first_s: float = math.inf
    row_s: float = 0.0
    step_s: float = math.inf
    exact: tuple[int, ...] = (1,)


class Level:
    """How much slower than measured things are now; 1 is as measured.

    The median of the last few ratios is followed, a part of the way each time: a stall is not
    believed, another load is after a few rounds.
    """

    def __init__(self) -> None:
        self.value = 1.0
        self._ratios: deque[float] = deque(maxlen=_N_REMEMBERED)

    def observe(self, ratio: float) -> None:
        self._ratios.append(max(ratio, 1e-3))
        median = statistics.median(self._ratios)
        self.value *= (median / self.value) ** _FOLLOW


class CostModel:
    """Predicts the seconds of a round's parts."""

    def __init__(self, table: CostTable) -> None:
        self.table = table
        self.n_max = len(table.target_s)
        self._level = Level()
        self._head_level = Level()
        self._off = [1.0] * self.n_max

    def verify_s(self, n_rows: int, n_past: int) -> float:
        """A target decode of n_rows, and choosing from them."""
        return self._level.value * self._off[n_rows - 1] * self._measured(n_rows, n_past)

    def first_s(self, n_waiting: int) -> float:
        """The head's first step with n_waiting rows of catch-up before the newest."""
        return self._head_level.value * (self.table.first_s + n_waiting * self.table.row_s)

    def step_s(self) -> float:
        return self._head_level.value * self.table.step_s

    def draft_s(self, n_waiting: int, depth: int) -> float:
        return self.first_s(n_waiting) + (depth - 1) * self.step_s()

    def observe_verify(self, n_rows: int, n_past: int, seconds: float) -> None:
        """Learn from a decode: its share of the level of all, and what is its row count's own."""
        ratio = seconds / self._measured(n_rows, n_past)
        self._level.observe(ratio / self._off[n_rows - 1])
        surprise = ratio / (self._level.value * self._off[n_rows - 1])
        off = self._off[n_rows - 1] * min(max(surprise, 0.8), 1.25) ** _FOLLOW_ROWS
        self._off[n_rows - 1] = min(max(off, 1 / _MOST_OFF), _MOST_OFF)

    def observe_draft(self, n_waiting: int, depth: int, seconds: float) -> None:
        predicted_s = self.draft_s(n_waiting, depth) / self._head_level.value
        self._head_level.observe(seconds / predicted_s)

    def _measured(self, n_rows: int, n_past: int) -> float:
        return self.table.target_s[n_rows - 1] + n_past * self.table.growth_s[n_rows - 1]
