"""A distribution over token ids: what a row of logits can give, and how likely each is.

Pure arithmetic on small arrays; knows neither logits nor who samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.types import Ids

Probs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """ids: (n,) int32, increasing; probs: (n,) float64, summing to 1."""

    ids: Ids
    probs: Probs

    def prob_of(self, token: int) -> float:
        """0 for a token that is none of the candidates."""
        index = int(self.ids.searchsorted(token))
        is_there = index < len(self.ids) and self.ids[index] == token
        return float(self.probs[index]) if is_there else 0.0

    def index_at(self, point: float) -> int:
        """The candidate in whose share of [0, 1) `point` lies: uniform points draw from it."""
        cumulative = self.probs.cumsum()
        index = int(cumulative.searchsorted(point * cumulative[-1], side="right"))
        return min(index, len(cumulative) - 1)

    def token_at(self, point: float) -> int:
        return int(self.ids[self.index_at(point)])

    def renamed(self, ids: Ids) -> Candidates:
        """The same distribution where candidate i goes by the name ids[i]; those increase too."""
        return Candidates(ids[self.ids], self.probs)

    def excess_over(self, other: Candidates, scale: float) -> Probs:
        """max(0, scale * self - other), (n,) in the order of self's ids."""
        there = np.minimum(other.ids.searchsorted(self.ids), len(other.ids) - 1)
        theirs = np.where(other.ids[there] == self.ids, other.probs[there], 0.0)
        return np.maximum(scale * self.probs - theirs, 0.0)

    def reweighted(self, weights: Probs) -> Candidates:
        """The same ids by other weights; as it is where those are nothing but rounding."""
        total = float(weights.sum())
        return Candidates(self.ids, weights / total) if total > 1e-12 else self


def point_mass(token: int) -> Candidates:
    """Nothing but one token."""
    return Candidates(np.array([token], np.int32), np.ones(1))
