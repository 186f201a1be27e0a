"""Finds texts at which an answer is to stop, while it comes in.

Knows text alone. What stands for something that is not shown, such as a control token, is looked at
by its spelling and given back as whatever the caller shows for it.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopScanner:
    """Gives text back as soon as it can no longer be part of a stop.

    found: the stop that was met; nothing comes after it
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self._shown_as: list[str] = []  # of each character that is held
        self.found: str | None = None

    @property
    def n_held(self) -> int:
        """Characters that are looked at and not given back."""
        return len(self._held)

    @property
    def held(self) -> str:
        """What is shown for them: what may yet become a stop, or a stop and what came with it."""
        return "".join(self._shown_as)

    def feed(self, text: str, shown_as: str | None = None, *, is_looked_at: bool = True) -> str:
        """What is certain now.

        shown_as:     what stands for `text` in it, itself by default
        is_looked_at: whether stops count in it; else it and what was held back pass
        """
        if self.found is not None or not text:
            return ""
        self._held += text
        self._shown_as += text if shown_as is None else [shown_as, *[""] * (len(text) - 1)]
        if not is_looked_at:
            return self.rest()
        places = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:  # the one that was whole first, however much came at once
            at, self.found = min(places, key=lambda place: (place[0] + len(place[1]), place[0]))
            return self._release(at)
        return self._release(len(self._held) - self._n_open())

    def rest(self) -> str:
        """What was held back, the answer having ended without a stop."""
        return self._release(len(self._held))

    def _release(self, n: int) -> str:
        text = "".join(self._shown_as[:n])
        self._held, self._shown_as = self._held[n:], self._shown_as[n:]
        return text

    def _n_open(self) -> int:
        """The length of the longest end of what is held that begins a stop."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-n:]) for stop in self._stops):
                return n
        return 0
