"""How far to draft next. Pure: knows neither the drafter nor the target."""

from __future__ import annotations

from typing import Protocol


class DepthPolicy(Protocol):
    """Decides, before each round, how many ids to draft."""

    def next_depth(self) -> int: ...

    def observe(self, n_drafted: int, n_accepted: int) -> None:
        """What became of the round just verified."""


class FixedDepth:
    """Always the same depth; 0 is plain decoding."""

    def __init__(self, depth: int) -> None:
        self._depth = depth

    def next_depth(self) -> int:
        return self._depth

    def observe(self, n_drafted: int, n_accepted: int) -> None:
        pass
