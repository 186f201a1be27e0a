"""How likely a proposed token is to survive, learned from every round.

Owns the calibration of a drafter's own confidence. Pure: knows neither the drafters nor costs.

A proposal is described by two features, and a logistic regression over them is updated online:
an extended Kalman filter on the weights (as in Fahrmeir 1992), whose drift lets it follow a text
that becomes easier or harder.
"""

from __future__ import annotations

import math

from mtp_cli.engine.grammar.constraint import Recalled
from mtp_cli.engine.tuning import TUNING, SurvivalTuning, Weights


def log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(clipped / (1 - clipped))


class Logistic:
    """P(survives | x, y), from log-odds that are linear in two features.

    Written out, since every drafted id asks several times, with nothing in the caches.

    weights, variances: the prior of a constant's weight, of x's and of y's, independent
    """

    def __init__(
        self, weights: Weights, variances: Weights, tuning: SurvivalTuning = TUNING.survival
    ) -> None:
        self._tuning = tuning
        self._weights = weights
        of_one, of_x, of_y = variances
        # (1, 1), (1, x), (1, y), (x, x), (x, y), (y, y)
        self._covariance = (of_one, 0.0, 0.0, of_x, 0.0, of_y)

    def predict(self, x: float, y: float) -> float:
        """A cautious estimate: what is not well known yet counts for less."""
        one, by_x, by_y = self._weights
        oo, ox, oy, xx, xy, yy = self._covariance
        variance = oo + x * (2 * ox + x * xx) + y * (2 * oy + 2 * x * xy + y * yy)
        deviation = math.sqrt(max(0.0, variance))
        return self._probability(one + by_x * x + by_y * y - self._tuning.caution * deviation)

    def learn(self, x: float, y: float, survived: bool) -> None:
        one, by_x, by_y = self._weights
        oo, ox, oy, xx, xy, yy = self._covariance
        predicted = self._probability(one + by_x * x + by_y * y)
        curvature = predicted * (1 - predicted)
        oo += self._tuning.drift
        gain_one, gain_x, gain_y = oo + ox * x + oy * y, ox + xx * x + xy * y, oy + xy * x + yy * y
        scale = 1 / (1 + curvature * (gain_one + gain_x * x + gain_y * y))
        step, known = scale * (survived - predicted), scale * curvature
        self._weights = (one + step * gain_one, by_x + step * gain_x, by_y + step * gain_y)
        self._covariance = (
            oo - known * gain_one * gain_one,
            ox - known * gain_one * gain_x,
            oy - known * gain_one * gain_y,
            xx - known * gain_x * gain_x,
            xy - known * gain_x * gain_y,
            yy - known * gain_y * gain_y,
        )

    def _probability(self, log_odds: float) -> float:
        probability = 1 / (1 + math.exp(-log_odds))
        return min(max(probability, self._tuning.least), self._tuning.most)


class HeadAcceptance:
    """Survival of a head's tokens: by position, its probability, and an n-gram match beside it.

    agreement: how many ids the match is long when it proposes the same token, as a negative
               number when it proposes another, 0 without a match
    is_block:  they are a block drafter's
    """

    def __init__(self, tuning: SurvivalTuning = TUNING.survival, *, is_block: bool = False) -> None:
        variances = tuning.block_variances if is_block else tuning.head_variances
        self._positions = [
            Logistic(tuning.head_weights, variances, tuning) for _ in range(tuning.n_positions)
        ]

    def predict(self, position: int, probability: float, agreement: int) -> float:
        return self._at(position).predict(log_odds(probability), _strength(agreement))

    def learn(self, position: int, probability: float, agreement: int, survived: bool) -> None:
        self._at(position).learn(log_odds(probability), _strength(agreement), survived)

    def _at(self, position: int) -> Logistic:
        return self._positions[min(position, len(self._positions) - 1)]


def _strength(agreement: int) -> float:
    return math.copysign(math.log2(abs(agreement)), agreement) if agreement else 0.0


class MatchAcceptance:
    """Survival of copied tokens, by how many tokens before them match, and by whether the place
    before went on the same way (see `Match.support`).

    A copied token that survived lengthens the match for the next, so one function serves every
    position of a draft.
    """

    def __init__(self, tuning: SurvivalTuning = TUNING.survival) -> None:
        self._support = tuning.support
        self._logistic = Logistic(tuning.copy_weights, tuning.copy_variances, tuning)

    def predict(self, length: int, support: int) -> float:
        return self._logistic.predict(math.log2(length), self._support[support])

    def learn(self, length: int, support: int, survived: bool) -> None:
        self._logistic.learn(math.log2(length), self._support[support], survived)


class ForcedAcceptance:
    """Survival of a token that spells what a grammar forces, where another spelling may be chosen.

    It ends what is forced: a longer token, which goes on behind that, may take its place.
    """

    def __init__(self, tuning: SurvivalTuning = TUNING.survival) -> None:
        self._logistic = Logistic(tuning.forced_weights, tuning.forced_variances, tuning)

    def predict(self) -> float:
        return self._logistic.predict(0.0, 0.0)

    def learn(self, survived: bool) -> None:
        self._logistic.learn(0.0, 0.0, survived)


class ValueAcceptance:
    """Survival of the rest of a value that is looked up in the prompt, and of what closes it.

    By how many bytes of the value are there already, and by whether it ends there, too.
    """

    def __init__(self, tuning: SurvivalTuning = TUNING.survival) -> None:
        self._rest = Logistic(tuning.value_weights, tuning.value_variances, tuning)
        self._end = Logistic(tuning.end_weights, tuning.end_variances, tuning)

    def predict(self, value: Recalled, k: int) -> float:
        """Of the k-th id, which is the rest's or closes it."""
        if k < value.n_rest:
            return self._rest.predict(math.log2(value.n_said), k > 0)
        return self._end.predict(value.is_clear, 0.0)

    def learn(self, value: Recalled, k: int, survived: bool) -> None:
        if k < value.n_rest:
            self._rest.learn(math.log2(value.n_said), k > 0, survived)
        else:
            self._end.learn(value.is_clear, 0.0, survived)
