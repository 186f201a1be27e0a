"""How likely a proposed token is to survive, learned from every round.

Owns the calibration of a drafter's own confidence. Pure: knows neither the drafters nor costs.

A proposal is described by a few features, and a logistic regression over them is updated online:
an extended Kalman filter on the weights (as in Fahrmeir 1992), whose drift lets it follow a text
that becomes easier or harder.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

_DRIFT = 0.001  # variance the weight of the constant feature gains with each label
_CAUTION = 0.5  # standard deviations of its log-odds taken off an estimate
_LEAST, _MOST = 0.005, 0.995


def log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(clipped / (1 - clipped))


class Logistic:
    """P(survives | features), features[0] being 1.

    weights, variances: the prior, independent for each feature
    """

    def __init__(self, weights: Sequence[float], variances: Sequence[float]) -> None:
        self._weights = list(weights)
        n = len(self._weights)
        self._covariance = [[variances[i] if i == j else 0.0 for j in range(n)] for i in range(n)]

    def predict(self, features: Sequence[float]) -> float:
        """A cautious estimate: what is not well known yet counts for less."""
        deviation = math.sqrt(max(0.0, _dot(self._gain(features), features)))
        return _sigmoid(_dot(self._weights, features) - _CAUTION * deviation)

    def learn(self, features: Sequence[float], survived: bool) -> None:
        predicted = _sigmoid(_dot(self._weights, features))
        curvature = predicted * (1 - predicted)
        self._covariance[0][0] += _DRIFT
        gain = self._gain(features)
        scale = 1 / (1 + curvature * _dot(gain, features))
        for i, g in enumerate(gain):
            self._weights[i] += scale * g * (survived - predicted)
            row = self._covariance[i]
            for j, h in enumerate(gain):
                row[j] -= curvature * scale * g * h

    def _gain(self, features: Sequence[float]) -> list[float]:
        return [_dot(row, features) for row in self._covariance]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return float(sum(map(operator.mul, a, b)))


def _sigmoid(log_odds: float) -> float:
    return min(max(1 / (1 + math.exp(-log_odds)), _LEAST), _MOST)


class HeadAcceptance:
    """Survival of a head's tokens: by position, its probability, and an n-gram match beside it.

    agreement: how many ids the match is long when it proposes the same token, as a negative
               number when it proposes another, 0 without a match
    """

    def __init__(self) -> None:
        self._positions = [Logistic((0.0, 0.85, 0.6), (0.3, 0.05, 0.05)) for _ in range(4)]

    def predict(self, position: int, probability: float, agreement: int) -> float:
        return self._at(position).predict(self._features(probability, agreement))

    def learn(self, position: int, probability: float, agreement: int, survived: bool) -> None:
        self._at(position).learn(self._features(probability, agreement), survived)

    def _at(self, position: int) -> Logistic:
        return self._positions[min(position, len(self._positions) - 1)]

    def _features(self, probability: float, agreement: int) -> tuple[float, float, float]:
        strength = math.copysign(math.log2(abs(agreement)), agreement) if agreement else 0.0
        return 1.0, log_odds(probability), strength


class MatchAcceptance:
    """Survival of copied tokens, by how many tokens before them match, and by whether the place
    before went on the same way (see `Match.support`).

    A copied token that survived lengthens the match for the next, so one function serves every
    position of a draft.
    """

    def __init__(self) -> None:
        self._logistic = Logistic((-0.95, 0.85, 0.8, -1.45), (0.4, 0.05, 0.2, 0.2))

    def predict(self, length: int, support: int) -> float:
        return self._logistic.predict(self._features(length, support))

    def learn(self, length: int, support: int, survived: bool) -> None:
        self._logistic.learn(self._features(length, support), survived)

    def _features(self, length: int, support: int) -> tuple[float, float, float, float]:
        return 1.0, math.log2(length), float(support > 0), float(support < 0)
