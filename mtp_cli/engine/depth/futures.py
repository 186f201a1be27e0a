"""What a draft that is not made yet may be worth, told by those made lately. Pure.

Owns the survival probabilities that were seen, and samples of them. Knows neither costs nor what is
decided.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from mtp_cli.engine.tuning import PolicyTuning

Gains = list[tuple[list[float], float]]


class Futures(Protocol):
    """Continuations of a draft, n_futures of them."""

    def note(self, k: int, survival: float) -> None:
        """What the k-th id of a draft was held to be worth; of each draft in order."""

    def sample(self) -> None:
        """Choose others."""

    def gains(self, k: int) -> Gains:
        """For each of n_futures, the tokens that 1, 2, ... ids after the k-th are expected to add
        once that one is reached; and the most of them."""


class _Sampled(ABC):
    """Samples, and what follows from them."""

    def __init__(self, tuning: PolicyTuning, chance: random.Random) -> None:
        self._tuning, self._random = tuning, chance

    def sample(self) -> None:
        self._futures = list(self._positions())
        self._gains_from: dict[int, Gains] = {}

    @abstractmethod
    def _positions(self) -> Iterator[list[float]]:
        """(n_futures,) survivals for each position."""

    def gains(self, k: int) -> Gains:
        if k not in self._gains_from:
            reached, gained = [1.0] * self._tuning.n_futures, [0.0] * self._tuning.n_futures
            self._gains_from[k] = gains = []
            for survival in self._futures[k:]:
                reached = [r * s for r, s in zip(reached, survival, strict=True)]
                gained = [g + r for g, r in zip(gained, reached, strict=True)]
                gains.append((gained, max(gained)))
        return self._gains_from[k]


class OfPositions(_Sampled):
    """Each position by itself: most drafts end before the last one.

    One that was seen too rarely is held to be like the one before it.
    """

    def __init__(self, n_positions: int, tuning: PolicyTuning, chance: random.Random) -> None:
        super().__init__(tuning, chance)
        self._seen: list[deque[float]] = [deque(maxlen=tuning.n_seen) for _ in range(n_positions)]

    def note(self, k: int, survival: float) -> None:
        self._seen[k].append(survival)

    def _positions(self) -> Iterator[list[float]]:
        pool, n_enough = [self._tuning.typical], self._tuning.n_enough
        for seen in self._seen:
            pool = list(seen) if len(seen) >= n_enough else [*pool[-n_enough:], *seen]
            yield self._random.choices(pool, k=self._tuning.n_futures)


class OfBlocks(_Sampled):
    """Whole drafts: a block says all at once, and is sure of many ids together or of few.

    Where one ended nothing more was to be had.
    """

    def __init__(self, n_positions: int, tuning: PolicyTuning, chance: random.Random) -> None:
        super().__init__(tuning, chance)
        self._n_positions = n_positions
        self._seen: deque[list[float]] = deque(maxlen=tuning.n_seen)

    def note(self, k: int, survival: float) -> None:
        if k == 0:
            self._seen.append([])
        self._seen[-1].append(survival)

    def _positions(self) -> Iterator[list[float]]:
        pool = list(self._seen)
        if len(pool) < self._tuning.n_enough:
            pool.append([self._tuning.typical] * self._n_positions)
        drafts = self._random.choices(pool, k=self._tuning.n_futures)
        for k in range(self._n_positions):
            yield [draft[k] if k < len(draft) else 0.0 for draft in drafts]
