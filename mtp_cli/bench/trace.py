"""What the drafters would have proposed at every place of a plain answer.

Owns the trace and the policy that records it. A trace knows no time: with a cost curve it tells
what any depth policy would have taken, the clairvoyant one included (`bound.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtp_cli.engine.depth.policy import Seconds
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.prefix import n_common


@dataclass(frozen=True)
class Trace:
    """A plain answer, and for each of its rounds what was proposed.

    prompt:  its ids
    tokens:  the answer's ids; round r begins with tokens[r] as the newest
    drafts:  of the heads, one for each round
    matches: of copying, likewise
    """

    prompt: list[int]
    tokens: list[int]
    drafts: list[Draft]
    matches: list[Match]

    def n_drafted_right(self, index: int) -> int:
        """How much of round `index`'s draft the answer went on to say."""
        return n_common(self.drafts[index].ids, self.tokens[index + 1 :])

    def n_copied_right(self, index: int) -> int:
        return n_common(self.matches[index].ids, self.tokens[index + 1 :])


class Recorder:
    """A depth policy that drafts as far as it can, verifies nothing and takes notes."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.matches: list[Match] = []

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        self.matches.append(match)
        return room

    def keep_going(self, draft: Draft) -> bool:
        return True

    def commit(self, prob: float) -> bool:
        return False

    def choose(self, draft: Draft) -> list[int]:
        self.drafts.append(draft)
        return []

    def observe(self, chosen: Sequence[int], seconds: Seconds) -> None:
        pass

    def trace(self, prompt: Sequence[int], tokens: Sequence[int]) -> Trace:
        return Trace(list(prompt), list(tokens), self.drafts, self.matches)
