"""Drafts by copying: what followed the last time the text went like this.

Owns an index of every n-gram of prompt and answer. Costs no pass of any model, so it is asked
every round; whether its match is worth verifying is the depth policy's business (prompt lookup
decoding, Saxena 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mtp_cli.engine.grammar.constraint import Recalled
from mtp_cli.engine.tuning import TUNING, CopyTuning
from mtp_cli.engine.types import MAX_COPIED


@dataclass(frozen=True)
class Match:
    """A copy of what followed an earlier place, where a grammar forces nothing else to come first.

    length:  how many ids before the copy agree with those before that place
    support: for each id, 1 where the place before that one went on the same way, -1 where it
             went on another way, 0 where there is none to tell
    n_forced: how many ids, the first ones, a grammar forces; n_certain: of them those that are all
             it allows
    value:   what the ids are, where they are the rest of a value that is in the prompt
    """

    ids: list[int] = field(default_factory=list)
    length: int = 0
    support: list[int] = field(default_factory=list)
    n_forced: int = 0
    n_certain: int = 0
    value: Recalled | None = None

    def is_forced(self, k: int) -> bool:
        """Whether nothing but the k-th id's text may follow those before it."""
        return k < self.n_forced or (self.value is not None and k > self.value.n_rest)


class NgramDrafter:
    """Follows the target's timeline by its ids alone.

    is_alone: whether nothing else drafts, so that a match of a single id is worth following
    """

    def __init__(self, *, is_alone: bool = False, tuning: CopyTuning = TUNING.copies) -> None:
        self._sizes = tuning.sizes_alone if is_alone else tuning.sizes
        self._longest = tuning.longest
        self._ids: list[int] = []
        # n-gram -> the positions after its last occurrence that something follows and after the
        # one before, -1 when there is none
        self._after: dict[tuple[int, ...], tuple[int, int]] = {}
        self._n_indexed = 0

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
        if end == self._n_indexed:
            return
        self._n_indexed = end
        after, last = self._after, tuple(self._ids[-self._sizes[0] :])
        for size in self._sizes:
            if size <= end:
                key = last[-size:]
                after[key] = (end, after[key][0] if key in after else -1)

    def match(self, newest: int, depth: int) -> Match:
        """At most `depth` ids to follow `newest`, from the place that matches longest."""
        depth = min(depth, MAX_COPIED)
        self._index_end()
        recent = [*self._ids[-self._longest :], newest]
        for size in self._sizes:
            found = self._after.get(tuple(recent[-size:])) if size <= len(recent) else None
            if found is not None:
                start, before = found
                ids = self._copy(start, newest, depth)
                return Match(ids, self._length(start, recent), self._support(before, ids))
        return Match()

    def _copy(self, start: int, newest: int, depth: int) -> list[int]:
        """What followed; a copy that runs into its own beginning goes on round the loop."""
        copied = self._ids[start : start + depth]
        if len(copied) < depth:
            copied.append(newest)
            period = len(copied)
            copied.extend(copied[i % period] for i in range(period, depth))
        return copied

    def _support(self, before: int, ids: list[int]) -> list[int]:
        support = [0] * len(ids)
        if before >= 0:
            for k, (other, copied) in enumerate(
                zip(self._ids[before : before + len(ids)], ids, strict=False)
            ):
                support[k] = 1 if other == copied else -1
                if other != copied:
                    break
        return support

    def _length(self, start: int, recent: list[int]) -> int:
        n = 0
        before = self._ids[max(0, start - len(recent)) : start]
        for earlier, now in zip(reversed(before), reversed(recent), strict=False):
            if earlier != now:
                break
            n += 1
        return n

    def truncate(self, n_past: int) -> None:
        """Forget everything at positions from `n_past` on."""
        if n_past >= len(self._ids):
            return
        kept = self._ids[:n_past]
        self._ids, self._after, self._n_indexed = [], {}, 0
        self.observe(kept)
