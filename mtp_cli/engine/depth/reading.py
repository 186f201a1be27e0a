"""Whether a drafter is to read what it missed of a text, where that takes as long as plain rounds.

Heads read a few rows, at once. A whole model that drafts reads the prompt, which takes the time of
several tokens, and how long an answer will be nobody knows. So it reads once it would have been
worth it for what was said already: an answer is expected to be half over (Lindy's law). What its
drafts will be worth shows before it read anything: where the target is sure of a token, a smaller
model finds the same one. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.depth.policy import Seconds
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.tuning import PolicyTuning

_MOST = 0.98  # survival: nothing is certain


class Reading:
    """What is known of this answer, and of how good the drafter was where the target was sure.

    n_drafted: the most ids that it drafts
    """

    def __init__(self, cost: CostModel, n_drafted: int, tuning: PolicyTuning) -> None:
        self._cost, self._n_drafted, self._tuning = cost, n_drafted, tuning
        self._is_dear = False
        self._right = self._expected = float(tuning.n_sure)  # as good as the target is sure
        self.open_answer()

    def open_answer(self) -> None:
        self._n_said, self._n_sure, self._sure = 0, 0, 0.0

    def pays(self, room: int, n_past: int, n_waiting: int) -> bool:
        """Whether a draft may be asked for that reads n_waiting rows first."""
        plain_s = self._cost.verify_s(1, n_past)
        reading = (self._cost.first_s(n_waiting) - self._cost.first_s(0)) / plain_s
        if reading <= self._tuning.reading_most:
            return True
        self._is_dear = True
        if self._n_sure < self._tuning.n_sure:
            return False
        return self._saved(n_past) * min(room, self._n_said) > reading

    def _saved(self, n_past: int) -> float:
        """Of a plain round, for each token, at the depth that saves the most."""
        survival = min(_MOST, self._sure / self._n_sure * self._right / self._expected)
        rows_s = self._cost.rows_s(min(1 + self._n_drafted, self._cost.n_max), n_past)
        reached = tokens = 1.0
        most, draft_s = 0.0, self._cost.first_s(0)
        for verify_s in rows_s[1:]:
            reached *= survival
            tokens += reached
            most = max(most, 1 - (verify_s + draft_s) / (tokens * rows_s[0]))
            draft_s += self._cost.step_s()
        return most

    def observe(self, chosen: Sequence[int], seconds: Seconds, draft: Draft) -> None:
        self._n_said += len(chosen)
        if not self._is_dear:
            return
        sure = seconds.sure()
        self._sure += sure
        self._n_sure += 1
        if draft.ids:
            kept = 1 - 1 / self._tuning.n_seen
            self._right = kept * self._right + (draft.ids[0] == chosen[0])
            self._expected = kept * self._expected + sure
