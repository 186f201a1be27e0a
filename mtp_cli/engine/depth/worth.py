"""What a round is worth: the tokens it is expected to give, less the price of its time.

Pure arithmetic on survival and costs; knows neither where they come from nor what is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match


@dataclass
class Round:
    """One round under way.

    costs:     (n_rows,) price of verifying 1, 2, ... rows, in tokens, with a part of the switch to
               them where the last round had another number
    copy_survival: of each id of the match, given the ones before it
    draft_survival: of each drafted id, likewise
    agreement: of each drafted id with the match, see `HeadAcceptance`
    margin:    by which verifying more must look better, for each plain round it takes longer
    n_sure:    ids of the match that are verified in any case: they are certain to stand, and their
               rows have to be read sooner or later
    ids:       what is verified
    """

    n_past: int
    n_waiting: int
    match: Match
    plain_s: float
    price: float
    margin: float
    costs: list[float]
    copy_survival: list[float]
    n_sure: int = 0
    draft: Draft = field(default_factory=Draft)
    draft_survival: list[float] = field(default_factory=list)
    agreement: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    @property
    def plain(self) -> float:
        """What a plain round is worth."""
        return 1.0 - self.costs[0]

    def price_of(self, seconds: float) -> float:
        return self.price * seconds / self.plain_s

    def best_part(self, survival: Sequence[float]) -> tuple[float, int]:
        """How much of a draft to verify: what the round is then worth, and how many ids."""
        if not survival:
            return self.plain, 0
        n_sure = min(self.n_sure, len(survival))
        worths = self.worths(survival)[n_sure:]
        best = max(worths)
        return best, n_sure + worths.index(best)

    def worths(self, survival: Sequence[float]) -> list[float]:
        """What the round is worth when 0, 1, 2, ... ids are verified."""
        worths, reached, tokens = [self.plain], 1.0, 1.0
        for probability, cost in zip(survival, self.costs[1:], strict=False):
            reached *= probability
            tokens += reached
            worths.append(tokens - cost - self.margin * (cost - self.costs[self.n_sure]))
        return worths

    def agreement_at(self, k: int) -> int:
        ids, length = self.match.ids, self.match.length + k
        if k >= len(ids) or (k > 0 and self.agreement[k - 1] <= 0):
            return 0
        return length if self.draft.ids[k] == ids[k] else -length

    def copied_given_draft(self) -> list[float]:
        """What the drafted ids say of the copied ones: the same one, or at most the rest."""
        survival = list(self.copy_survival)
        for k, agreement in enumerate(self.agreement[: len(survival)]):
            if k < self.match.n_certain:
                continue
            if agreement > 0:
                survival[k] = self.draft_survival[k]
            elif agreement < 0:
                survival[k] = min(survival[k], 1 - self.draft_survival[k])
        return survival


def first_part(costs: Sequence[float], n_rows: int) -> int:
    """How many of so many rows to read at first, where all have to be read and none is in doubt.

    All of them, unless two parts cost less than the whole.

    costs: of 1, 2, ... rows together, n_rows of them or more
    """
    least, first = [0.0], [0]
    for n in range(1, n_rows + 1):
        cost, part = min((costs[k - 1] + least[n - k], -k) for k in range(1, n + 1))
        least.append(cost)
        first.append(-part)
    return first[n_rows]
