"""What a round costs here: measured once, then corrected by every round.

Owns the prediction of seconds from row counts, draft steps and context length. Pure: knows
neither the clock nor the models; `calibrate.py` makes the first measurements.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats64 = npt.NDArray[np.float64]

# Standard deviations of logarithms of seconds.
_NOISE = 0.1  # of one observation
_LEVEL_FIRST, _LEVEL_DRIFT = 0.3, 0.03  # of the level of all: at first, and gained each round
_OFF_FIRST, _OFF_DRIFT = 0.1, 0.004  # of what is one row count's own
_EXPECTED, _EXPECTED_EVERY = 0.1, 4  # of what is as expected, only every fourth is learned from
_STALL = 0.25  # an observation further off than this is not believed until the next one is too


@dataclass(frozen=True)
class CostTable:
    """Measured seconds on one machine.

    target_s: (n_max,) a target decode of 1, 2, ... rows with a short context, verification
              included, when the decode before had as many
    switch_s: what it takes longer when that had another number: llama.cpp builds its graph anew
    growth_s: (n_max,) what each token of context adds to that
    first_s:  the head's first draft step, which also reads the newest row
    row_s:    each further row of catch-up in that step
    step_s:   each further draft step
    exact:    row counts whose logits were seen to be bit-identical to those of single rows
    """

    target_s: tuple[float, ...]
    growth_s: tuple[float, ...]
    first_s: float = math.inf
    row_s: float = 0.0
    step_s: float = math.inf
    exact: tuple[int, ...] = (1,)
    switch_s: float = 0.0


class Correction:
    """How much slower than measured things are now, as a factor for each of n shapes.

    A factor is the level of all shapes times what is a shape's own; the first shape has nothing
    of its own. A Kalman filter over the logarithms tells the two apart: another load moves all
    shapes, also those not seen since, and a shape that was measured wrong is found out by
    comparison with the others. A stall is left out; what surprises twice is believed.
    """

    def __init__(self, n_shapes: int) -> None:
        self._state = np.zeros(n_shapes)  # the level, then each shape's own
        self._covariance = np.diag([_LEVEL_FIRST**2] + [_OFF_FIRST**2] * (n_shapes - 1))
        self._drift = np.diag([_LEVEL_DRIFT**2] + [_OFF_DRIFT**2] * (n_shapes - 1))
        self._n_observed = 0
        self._last_surprise = 0.0
        self._surprises = [0.0] * n_shapes
        self.factors = [1.0] * n_shapes

    def observe(self, shape: int, ratio: float) -> bool:
        """Learn from seconds taken over seconds measured; False when it is left out as a stall."""
        surprise = math.log(max(ratio, 1e-6) / self.factors[shape])
        self._n_observed += 1
        if abs(surprise) < _EXPECTED and self._n_observed % _EXPECTED_EVERY:
            return True
        self._covariance += self._drift
        if self._is_stall(shape, surprise):
            return False
        shared = self._shared(shape)
        self._state += shared * (surprise / self._variance(shape))
        self._covariance -= np.outer(shared, shared) / self._variance(shape)
        own = np.concatenate([[0.0], self._state[1:]])
        self.factors = np.exp(self._state[0] + own).tolist()
        return True

    def _shared(self, shape: int) -> Floats64:
        """(n_shapes,) covariance of the state with a shape's factor."""
        level: Floats64 = self._covariance[0]
        return level + self._covariance[shape] if shape else level

    def _variance(self, shape: int) -> float:
        shared = self._shared(shape)
        return float(shared[0] + (shared[shape] if shape else 0.0) + _NOISE**2)

    def _is_stall(self, shape: int, surprise: float) -> bool:
        """Whether to leave an observation out; when it is the second such one, opens the mind."""
        before, same_before = self._last_surprise, self._surprises[shape]
        self._last_surprise = self._surprises[shape] = 0.0
        if surprise**2 <= max(_STALL**2, 4 * self._variance(shape)):
            return False
        self._last_surprise = self._surprises[shape] = surprise
        variances = np.zeros(len(self._state))
        if shape == 0:
            variances += surprise**2  # the others were seen in the light of a wrong level
        elif before * surprise > 0:
            variances[0], variances[shape] = surprise**2, surprise**2 / 8  # of all, it seems
        else:
            variances[shape] = surprise**2
        if max(before * surprise, same_before * surprise) <= 0:
            return True
        self._covariance += np.diag(variances)
        return False


class CostModel:
    """Predicts the seconds of a round's parts."""

    def __init__(self, table: CostTable) -> None:
        self.table = table
        self.n_max = len(table.target_s)
        self._target = Correction(self.n_max)
        self._head = Correction(1)

    def verify_s(self, n_rows: int, n_past: int) -> float:
        """A target decode of n_rows after another of as many, and choosing from them."""
        return self._target.factors[n_rows - 1] * self._measured(n_rows, n_past)

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
        return self._head.factors[0] * self.table.step_s

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
