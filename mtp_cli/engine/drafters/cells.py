"""The memory of what drafts from rows of its target: which positions it holds.

Owns where the next rows go, and what is forgotten for them. Knows nothing of what rows are.
"""

from __future__ import annotations

from typing import Protocol


class _Memory(Protocol):
    n_ctx: int

    def remove_from(self, position: int) -> bool: ...
    def remove_before(self, position: int) -> bool: ...
    def clear(self) -> None: ...


class Cells:
    """Those of a context of the drafter's own: true ones from `first` on, and before `end`.

    What comes after them is of a draft, and is dropped before the next rows.
    """

    def __init__(self, context: _Memory) -> None:
        self._context = context
        self.first = self.end = 0

    def make_place(self, start: int, end: int) -> None:
        """For rows from `start` to before `end`, right after the true ones before them."""
        is_gap = start > self.end or start < self.first
        if is_gap or not self._context.remove_from(start):
            self._context.clear()  # the drafter only loses what it remembers of the text
            self.first = start
        if end - self.first <= self._context.n_ctx:
            return
        self.first = max(self.first, end - self._context.n_ctx // 2)
        if self.first >= start or not self._context.remove_before(self.first):
            self._context.clear()
            self.first = start

    def truncate(self, position: int) -> None:
        self.end = min(self.end, position)
