"""What a round costs here: measured once, then corrected by every round.

Owns the prediction of seconds from row counts, draft steps and context length. Pure: knows
neither the clock nor the models; `calibrate.py` makes the first measurements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtp_cli.engine.tuning import TUNING, CostTuning

_BLOCK = 4  # rows that kernels of ggml take at a time


@dataclass(frozen=True)
class CostTable:
    """Measured seconds on one machine.

    target_s: (n_max,) a target decode of 1, 2, ... rows with a short context, verification
              included, when the decode before had as many
    switch_s: what it takes longer when that had another number: llama.cpp builds its graph anew
    growth_s: (n_max,) what each token of context adds to that
    first_s:  the head's first draft step, which also reads the newest row
    row_s:    each further row of catch-up in that step
    step_s:   each further draft step; 0 where one pass drafts a block
    """

    target_s: tuple[float, ...]
    growth_s: tuple[float, ...]
    first_s: float = math.inf
    row_s: float = 0.0
    step_s: float = math.inf
    switch_s: float = 0.0


def interpolated(counts: Sequence[int], seconds: Sequence[float], n_max: int) -> tuple[float, ...]:
    """Seconds of 1 to n_max rows from those of some row counts.

    None is held to be dearer than a larger one. Most that seem so were disturbed when they were
    measured, and what is too dear is never tried, so that no round would ever correct it. But those
    that are measured once in a while say nothing of those that are measured often.

    Kernels work on blocks of 4 rows, so that the first row of a block is dear and the others
    are cheap. How much of a block's cost its first row makes is taken from the block before.
    """
    often = [s for n, s in zip(counts, seconds, strict=True) if n <= TUNING.calibration.n_often]
    rarely = np.maximum(seconds[len(often) :], often[-1])
    parts = (np.minimum.accumulate(part[::-1])[::-1] for part in (np.array(often), rarely))
    known = dict(zip(counts, np.concatenate([*parts]).tolist(), strict=True))
    for first in range(_BLOCK + 1, n_max + 1, _BLOCK):
        last, before = first + _BLOCK - 1, first - 1
        if first not in known and {last, before, before - _BLOCK} <= known.keys():
            rise = known[before] - known[before - _BLOCK]
            jump = known[first - _BLOCK] - known[before - _BLOCK]
            share = min(1.0, max(1 / _BLOCK, jump / rise)) if rise > 0 else 1.0
            known[first] = known[before] + share * (known[last] - known[before])
    xs = sorted(known)
    return tuple(np.interp(range(1, n_max + 1), xs, [known[x] for x in xs]).tolist())


def is_sound(table: CostTable) -> bool:
    """Whether what was read has the types of a table and values that can be seconds."""
    series = (table.target_s, table.growth_s)
    steps = (table.first_s, table.row_s, table.step_s, table.switch_s)
    if not all(isinstance(values, tuple) for values in series):
        return False
    if not all(type(value) is float for value in (*itertools.chain(*series), *steps)):
        return False
    return (
        len(table.growth_s) == len(table.target_s)
        and all(0 < seconds < math.inf for seconds in table.target_s)
        and all(
            0 <= seconds < math.inf for seconds in (*table.growth_s, table.row_s, table.switch_s)
        )
        and table.first_s > 0
        and table.step_s >= 0
    )


class Correction:
    """How much slower than measured things are now, as a factor for each of n shapes.

    A factor is the level of all shapes times what is a shape's own; the first shape has nothing
    of its own. A Kalman filter over the logarithms tells the two apart: another load moves all
    shapes, also those not seen since, and a shape that was measured wrong is found out by
    comparison with the others. A stall is left out; what surprises twice is believed. Only the
    first shape can tell whether that was the level: it `is_in_doubt` until then.

    A shape that was never observed is independent of all others, so that the filter need not know
    it: its state has the level and the shapes seen, in the order they came. What was learned of a
    shape fades while it is not seen. Else one that was disturbed once, and is avoided since, would
    be avoided for ever.
    """

    def __init__(self, n_shapes: int, tuning: CostTuning = TUNING.cost) -> None:
        self._tuning = tuning
        self._index = {0: 0}  # of a shape in the state; the level stands for the first
        self._state = [0.0]
        self._covariance = [[self._tuning.level_first**2]]
        self._n_observed = self._n_drifted = 0
        self._last_surprise = 0.0
        self._surprises = [0.0] * n_shapes
        self.is_in_doubt = False
        self.factors = [1.0] * n_shapes

    def observe(self, shape: int, ratio: float) -> bool:
        """Learn from seconds taken over seconds measured; False when it is left out as a stall."""
        surprise = math.log(max(ratio, 1e-6) / self.factors[shape])
        self._n_observed += 1
        self.is_in_doubt = self.is_in_doubt and shape > 0
        if abs(surprise) < self._tuning.expected and self._n_observed % self._tuning.expected_every:
            return True
        own = self._place(shape)
        self._drift(own)
        if self._is_stall(shape, own, surprise):
            return False
        shared = self._shared(own)
        variance = self._variance(own, shared)
        gains = [s / variance for s in shared]
        for i, gain in enumerate(gains):
            self._state[i] += gain * surprise
            self._covariance[i] = [
                c - gain * s for c, s in zip(self._covariance[i], shared, strict=True)
            ]
        level = self._state[0]
        self.factors = [math.exp(level)] * len(self.factors)
        for seen, i in self._index.items():
            if i > 0:
                self.factors[seen] = math.exp(level + self._state[i])
        return True

    def is_refuted(self) -> bool:
        """Whether what was measured was surely wrong: all that is much faster now was disturbed
        then, and no load changes one shape alone. Corrections would take rounds of every shape, and
        those held dear are not tried."""
        level, *own = self._state
        doubt, *doubts = (2 * math.sqrt(row[i]) for i, row in enumerate(self._covariance))
        return level + doubt < -self._tuning.refuted or any(
            abs(deviation) - doubt > self._tuning.refuted_own
            for deviation, doubt in zip(own, doubts, strict=True)
        )

    def _drift(self, seen: int) -> None:
        """Let time pass since the last lesson: all become less certain, those not seen fade."""
        self._covariance[0][0] += self._tuning.level_drift**2
        kept = self._tuning.kept ** (self._n_observed - self._n_drifted)
        self._n_drifted = self._n_observed
        for i in range(1, len(self._state)):
            if i == seen:
                self._covariance[i][i] += self._tuning.own_drift**2
                continue
            self._state[i] *= kept
            self._covariance[i] = [kept * c for c in self._covariance[i]]
            for row in self._covariance:
                row[i] *= kept
            self._covariance[i][i] += (1 - kept**2) * self._tuning.own_first**2

    def _place(self, shape: int) -> int:
        """Where in the state a shape's own part is; 0 where it has none."""
        if shape not in self._index:
            self._index[shape] = len(self._state)
            self._state.append(0.0)
            for row in self._covariance:
                row.append(0.0)
            self._covariance.append([0.0] * len(self._state))
            self._covariance[-1][-1] = self._tuning.own_first**2
        return self._index[shape]

    def _shared(self, own: int) -> list[float]:
        """Covariance of the state with a shape's factor."""
        level = self._covariance[0]
        if own == 0:
            return list(level)
        return [a + b for a, b in zip(level, self._covariance[own], strict=True)]

    def _variance(self, own: int, shared: list[float]) -> float:
        """Of an observation."""
        return shared[0] + (shared[own] if own else 0.0) + self._tuning.noise**2

    def _is_stall(self, shape: int, own: int, surprise: float) -> bool:
        """Whether to leave an observation out; when it is the second such one, opens the mind."""
        before, same_before = self._last_surprise, self._surprises[shape]
        self._last_surprise = self._surprises[shape] = 0.0
        if surprise**2 <= max(self._tuning.stall**2, 4 * self._variance(own, self._shared(own))):
            return False
        self._last_surprise = self._surprises[shape] = surprise
        is_first = max(before * surprise, same_before * surprise) <= 0
        if is_first and not (shape == 0 and surprise < 0):  # nothing is faster by accident
            return True
        self.is_in_doubt = shape > 0
        if shape == 0:  # the others were seen in the light of a wrong level
            for i in range(len(self._state)):
                self._covariance[i][i] += surprise**2
        elif before * surprise > 0:  # of all, it seems
            self._covariance[0][0] += surprise**2
            self._covariance[own][own] += surprise**2 / 8
        else:
            self._covariance[own][own] += surprise**2
        return False


class CostModel:
    """Predicts the seconds of a round's parts.

    n_threads: how many a decode has now: with each number it is another machine
    """

    def __init__(
        self,
        table: CostTable,
        tuning: CostTuning = TUNING.cost,
        *,
        n_threads: Callable[[], int] = lambda: 1,
    ) -> None:
        self.table = table
        self.n_max = len(table.target_s)
        self._tuning = tuning
        self._n_threads = n_threads
        # A further step reads one row, as the first one does at least. What was disturbed when it
        # was measured would be corrected only by drafts that it keeps from being made.
        self._step_s = min(table.step_s, table.first_s)
        self._targets: dict[int, Correction] = {}
        self._heads: dict[int, Correction] = {}

    @property
    def _target(self) -> Correction:
        """Of its decodes, as they are now."""
        n_threads = self._n_threads()
        if n_threads not in self._targets:
            self._targets[n_threads] = Correction(self.n_max, self._tuning)
        return self._targets[n_threads]

    @property
    def _head(self) -> Correction:
        n_threads = self._n_threads()
        if n_threads not in self._heads:
            self._heads[n_threads] = Correction(1, self._tuning)
        return self._heads[n_threads]

    def verify_s(self, n_rows: int, n_past: int) -> float:
        """A target decode of n_rows after another of as many, and choosing from them."""
        return self._target.factors[n_rows - 1] * self._measured(n_rows, n_past)

    def is_in_doubt(self) -> bool:
        """Whether everything became slower, or some row counts did: one row would tell."""
        return self._target.is_in_doubt

    def is_refuted(self) -> bool:
        """Whether the table is wrong, as one that was measured while the machine was busy."""
        return self._target.is_refuted()

    def switch_s(self) -> float:
        """What it takes longer after a decode of another number of rows."""
        return self._target.factors[0] * self.table.switch_s

    def rows_s(self, n_rows: int, n_past: int) -> list[float]:
        """The same for 1 to n_rows."""
        table = zip(self._target.factors, self.table.target_s, self.table.growth_s, strict=True)
        return [f * (t + n_past * g) for f, t, g in itertools.islice(table, n_rows)]

    def first_s(self, n_waiting: int) -> float:
        """The head's first step with n_waiting rows of catch-up before the newest."""
        return self._head.factors[0] * (self.table.first_s + n_waiting * self.table.row_s)

    def step_s(self) -> float:
        """Each further step."""
        return self._head.factors[0] * self._step_s

    @property
    def drafts_blocks(self) -> bool:
        """Whether one pass drafts all: to draft deeper adds rows to verify, and no step."""
        return self.table.step_s == 0

    def draft_s(self, n_waiting: int, depth: int) -> float:
        return self.first_s(n_waiting) + (depth - 1) * self.step_s()

    def observe_verify(self, n_rows: int, n_past: int, seconds: float, *, switched: bool) -> bool:
        """False when this is not believed yet. switched: the last decode had other rows."""
        measured_s = self._measured(n_rows, n_past) + switched * self.table.switch_s
        return self._target.observe(n_rows - 1, seconds / measured_s)

    def observe_draft(self, n_waiting: int, depth: int, seconds: float) -> None:
        measured_s = self.draft_s(n_waiting, depth) / self._head.factors[0]
        self._head.observe(0, seconds / measured_s)

    def _measured(self, n_rows: int, n_past: int) -> float:
        return self.table.target_s[n_rows - 1] + n_past * self.table.growth_s[n_rows - 1]
