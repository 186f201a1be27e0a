"""Drafts by copying: what followed the last time the text went like this.

Owns an index of every n-gram of prompt and answer. Costs no pass of any model, so it is asked
every round; whether its match is worth verifying is the depth policy's business (prompt lookup
decoding, Saxena 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mtp_cli.engine.target import MAX_DEPTH

_SIZES = (12, 6, 3, 2)  # n-grams looked up, longest first; the last is the shortest match
_LONGEST = 64  # how far back a match is followed to learn its length


@dataclass(frozen=True)
class Match:
    """A copy of what followed an earlier place: its ids, and how many ids before them agree."""

    ids: list[int] = field(default_factory=list)
    length: int = 0


class NgramDrafter:
    """Follows the target's timeline by its ids alone."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        # n-gram -> the position after its most recent occurrence that something follows
        self._after: dict[tuple[int, ...], int] = {}

    @property
    def n_past(self) -> int:
        return len(self._ids)

    def observe(self, ids: Sequence[int]) -> None:
        """The timeline goes on with `ids`."""
        for token in ids:
            self._index_end()
            self._ids.append(token)

    def _index_end(self) -> None:
        """Something is about to follow: the n-grams that end here can be found from now on."""
        end = len(self._ids)
        for size in _SIZES:
            if size <= end:
                self._after[tuple(self._ids[end - size :])] = end

    def match(self, newest: int, depth: int) -> Match:
        """At most `depth` ids to follow `newest`, from the place that matches longest."""
        depth = min(depth, MAX_DEPTH)
        self._index_end()
        recent = [*self._ids[-_LONGEST:], newest]
        for size in _SIZES:
            start = self._after.get(tuple(recent[-size:])) if size <= len(recent) else None
            if start is not None:
                return Match(self._copy(start, newest, depth), self._length(start, recent))
        return Match()

    def _copy(self, start: int, newest: int, depth: int) -> list[int]:
        """What followed; a copy that runs into its own beginning goes on round the loop."""
        copied = self._ids[start : start + depth]
        if len(copied) < depth:
            copied.append(newest)
            period = len(copied)
            copied.extend(copied[i % period] for i in range(period, depth))
        return copied

    def _length(self, start: int, recent: list[int]) -> int:
        n = 0
        while n < min(len(recent), start) and self._ids[start - 1 - n] == recent[-1 - n]:
            n += 1
        return n

    def truncate(self, n_past: int) -> None:
        """Forget everything at positions from `n_past` on."""
        if n_past >= len(self._ids):
            return
        kept = self._ids[:n_past]
        self._ids, self._after = [], {}
        self.observe(kept)
