"""How far to draft, and how much of a draft to verify. Pure: knows no model and no clock.

Every round takes what gives the most tokens for its time. Time has a price: the tokens that the
policy earns per second elsewhere, so that a round is worth

    expected tokens - price * seconds

and the best average rate is the one where the best round is worth nothing (Dinkelbach 1967; the
optimal stopping of a renewal process). The expected tokens of a verified draft are 1 plus the sum
of its survival probabilities (`survival.py`), its seconds are `cost.py`'s.

What was expected may not come. So heads live on a budget: they are asked while what they lost
against plain decoding is less than a small share of the time, or than they have won. Copies, which
cost nothing until they are verified, have to promise the more the more they have lost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Sequence

from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.depth.futures import Futures, OfBlocks, OfPositions
from mtp_cli.engine.depth.policy import Seconds
from mtp_cli.engine.depth.reading import Reading
from mtp_cli.engine.depth.survival import (
    ForcedAcceptance,
    HeadAcceptance,
    MatchAcceptance,
    ValueAcceptance,
)
from mtp_cli.engine.depth.worth import Round, first_part
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.tuning import TUNING, Tuning
from mtp_cli.engine.types import MAX_COPIED, MAX_DEPTH


class ExpectedValue:
    """The automatic depth: the most expected tokens per second, round by round.

    Time is counted in plain rounds, so that a machine that slows down changes no decision.

    row_counts: how many rows may be verified together, asked in each round; any unless told
    n_drafted:  the most ids that the heads can draft; more than MAX_DEPTH are not asked for, but of
                a block, which costs the same
    tuning:     constants, to be swept; those of `survival` are for what is learned of drafts
    """

    def __init__(
        self,
        cost: CostModel,
        row_counts: Container[int] | None = None,
        *,
        n_drafted: int = MAX_DEPTH,
        tuning: Tuning = TUNING,
    ) -> None:
        self._cost = cost
        self._tuning = tuning.policy
        self._row_counts = row_counts
        self._has_heads = math.isfinite(cost.step_s()) and n_drafted > 0
        self._n_drafted = min(n_drafted, cost.n_max - 1 if cost.drafts_blocks else MAX_DEPTH)
        self._reading = Reading(cost, self._n_drafted, tuning.policy)
        self._is_block = cost.drafts_blocks
        self._heads = HeadAcceptance(tuning.survival, is_block=self._is_block)
        self._matches = MatchAcceptance(tuning.survival)
        self._forced = ForcedAcceptance(tuning.survival)
        self._values = ValueAcceptance(tuning.survival)
        kind = OfBlocks if self._is_block else OfPositions
        self._futures: Futures = kind(self._n_drafted, tuning.policy, random.Random(0))
        self._n_rounds = self._n_since_plain = 0
        self._tokens = self._time = self._tuning.price_rounds
        self._wait, self._n_parked = self._tuning.first_wait, 0
        self._n_opening = 0
        self._n_copied = self._tuning.n_tried
        self._heads_budget, self._deficit = self._tuning.heads_first, 0.0
        self._prospect = 0.0
        self._last_rows = 1
        self._is_resting, self._n_past = False, 0
        self._n_said = 0

    def open_answer(self) -> None:
        """Another text begins: what drafts were worth in the one before says little of it."""
        if self._n_rounds > 0:
            self._heads_budget = min(self._heads_budget, self._tuning.heads_again)
        self._n_opening = self._tuning.n_opening
        self._n_copied = self._tuning.n_tried
        self._n_said = 0
        self._reading.open_answer()
        self._last_rows = 1  # the prompt's last one

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        self._may_read = self._has_heads and self._reading.pays(room, n_past, n_waiting)
        self._is_resting = not match.ids and (not self._may_read or self._may_rest())
        if self._is_resting:
            self._n_past = n_past
            return 0
        n_proposed = max(self._n_drafted, len(match.ids))
        n_rows = 1 + max(0, min(room, self._cost.n_max - 1, n_proposed))
        rows_s = self._cost.rows_s(n_rows, n_past)
        price = max(1.0, self._tokens / self._time)
        switch_s = self._tuning.switch_share * self._cost.switch_s()
        counts = self._row_counts
        costs = [
            (seconds + (n != self._last_rows) * switch_s) * price / rows_s[0]
            if n == 1 or counts is None or n in counts
            else math.inf
            for n, seconds in enumerate(rows_s, 1)
        ]
        n_certain = min(match.n_certain, n_rows - 1)
        n_sure = first_part(costs, 1 + n_certain) - 1 if n_certain else 0
        n_most = n_sure if n_sure < n_certain else max(match.n_forced, self._n_copied)
        if match.value is not None:
            n_most = len(match.ids)
        elif match.length == 1 and self._n_said < self._tuning.n_before_weak:
            n_most = match.n_forced
        self._round = Round(
            n_past,
            n_waiting,
            match,
            plain_s=rows_s[0],
            price=price,
            margin=self._tuning.margin + self._tuning.dearer * self._deficit,
            costs=costs,
            copy_survival=self._survival_of(match, min(n_rows - 1, n_most)),
            n_sure=n_sure,
        )
        if n_rows == 1 or n_certain or not self._wants_heads():
            return 0
        return min(n_rows - 1, self._n_drafted)

    def _survival_of(self, match: Match, n_max: int) -> list[float]:
        """Of each id that is forced or copied, as far as there is some hope to get."""
        survival = [1.0] * min(match.n_certain, n_max)
        reached = 1.0
        for k in range(len(survival), min(len(match.support), n_max)):
            if match.is_forced(k):
                survival.append(self._forced.predict())
            elif match.value is not None:
                survival.append(self._values.predict(match.value, k))
            else:
                survival.append(self._matches.predict(match.length + k, match.support[k]))
            reached *= survival[-1]
            if reached < self._tuning.hope:
                break
        return survival

    def _may_rest(self) -> bool:
        """Whether this is a round like many: nothing to copy, heads parked, no trial due.

        A shortcut, since a parked policy must cost next to nothing.
        """
        if not self._has_heads:
            return True
        is_due = self._n_parked + 1 >= self._wait or self._n_rounds % self._tuning.refresh == 0
        if (
            is_due
            or self._n_opening > 0
            or self._prospect > 0
            or self._n_rounds < self._tuning.refresh
        ):
            return False
        self._n_parked += 1
        self._n_rounds += 1
        return True

    def _wants_heads(self) -> bool:
        """Whether drafting pays on average; now and then also where it did not, to find out."""
        if not self._may_read or self._is_comparison_due():
            return False
        if self._n_rounds < self._tuning.refresh or self._n_rounds % self._tuning.refresh == 0:
            self._look_ahead()
        self._n_rounds += 1
        is_opening = self._n_opening > 0
        self._n_opening -= is_opening
        now = self._round
        short = self._cost.first_s(now.n_waiting) / now.plain_s - self._heads_budget
        gain = self._prospect - (now.best_part(now.copy_survival)[0] - now.plain)
        if gain > self._tuning.doubt * max(0.0, short):
            self._wait, self._n_parked = self._tuning.first_wait, 0
            return True
        self._n_parked += 1
        if is_opening:
            return True
        if self._n_parked < self._wait or short > 0:
            return False
        self._wait, self._n_parked = min(2 * self._wait, self._tuning.longest_wait), 0
        return True

    def _look_ahead(self) -> None:
        """Sample futures, and find what asking the heads is worth more than a plain round."""
        self._futures.sample()
        # What the catch-up costs is left out: rows that wait have to be read sooner or later.
        plain, first_s = self._round.plain, self._cost.first_s(0)
        self._prospect = self._worth_of_more(plain, first_s) - plain

    def _is_comparison_due(self) -> bool:
        """Whether a plain round is due, lest its cost be forgotten where drafting always pays."""
        wait = self._tuning.compare_soon if self._cost.is_in_doubt() else self._tuning.compare_every
        return self._n_since_plain >= wait

    def keep_going(self, draft: Draft) -> bool:
        now = self._round
        self._note(draft)
        if len(now.draft_survival) >= min(len(now.costs) - 1, self._n_drafted):
            return False
        if self._is_block:  # it is there already
            return math.prod(now.draft_survival) > self._tuning.hope
        worth = now.best_part(now.draft_survival)[0]
        if now.copy_survival:
            worth = max(worth, now.best_part(now.copied_given_draft())[0])
        return self._worth_of_more(worth, self._cost.step_s(), enough=worth) > worth

    def commit(self, prob: float) -> bool:
        """Where the next id is worth its row by itself, and no copy competes with it."""
        now, k = self._round, len(self._round.draft_survival)
        if now.match.ids:
            return False
        return now.best_part([*now.draft_survival, self._heads.predict(k, prob, 0)])[1] == k + 1

    def _note(self, draft: Draft) -> None:
        """Take in what was drafted since the last look."""
        now = self._round
        now.draft = draft
        for k in range(len(now.draft_survival), len(draft.ids)):
            now.agreement.append(now.agreement_at(k))
            if k < now.match.n_certain:
                now.draft_survival.append(1.0)
                continue
            now.draft_survival.append(self._heads.predict(k, draft.probs[k], now.agreement[k]))
            self._futures.note(k, now.draft_survival[k])

    def _worth_of_more(self, worth: float, next_s: float, enough: float = math.inf) -> float:
        """What the round is worth if 1, 2, ... more ids are drafted and the best part verified.

        The future is sampled from what was seen lately at these positions: a further id costs a
        step whatever it turns out to be, and is only verified when it is a good one.

        enough: a worth above this need not be the highest
        """
        now = self._round
        k = len(now.draft_survival)
        reached = tokens = 1.0
        for survival in now.draft_survival:
            reached *= survival
            tokens += reached
        spent, step = now.price_of(next_s), now.price_of(self._cost.step_s())
        most, values = worth - spent, [worth] * self._tuning.n_futures
        for (gains, highest), cost in zip(self._futures.gains(k), now.costs[k + 1 :], strict=False):
            surplus = tokens - cost
            if surplus + reached * highest <= worth:
                spent += step
                continue
            # Written out: `max` would be called a hundred times a round.
            values = [
                v if v > (more := surplus + reached * g) else more
                for v, g in zip(values, gains, strict=True)
            ]
            most = max(most, sum(values) / self._tuning.n_futures - spent)
            if most > enough:
                break
            spent += step
        return most

    def choose(self, draft: Draft) -> list[int]:
        if self._is_resting:
            return []
        now = self._round
        self._note(draft)
        if not draft.ids and not now.match.ids:
            return now.ids
        if self._is_comparison_due() and not now.n_sure:
            return now.ids
        worth, n_drafted = now.best_part(now.draft_survival)
        n_drafted = max(n_drafted, draft.n_committed)
        worth_copied, n_copied = now.best_part(now.copied_given_draft())
        if now.n_sure or (worth_copied > worth and not draft.drawn):
            now.ids = now.match.ids[:n_copied]
        else:
            now.ids = draft.ids[:n_drafted]
        return now.ids

    def observe(self, chosen: Sequence[int], seconds: Seconds) -> None:
        self._n_said += len(chosen)
        self._reading.observe(chosen, seconds, Draft() if self._is_resting else self._round.draft)
        if self._is_resting:
            self._n_since_plain = 0
            self._observe_verify(1, self._n_past, seconds.verify)
            self._earn(len(chosen), 1.0)
            return
        now = self._round
        n_rows = 1 + len(now.ids)
        modelled_s = self._cost.verify_s(n_rows, now.n_past)
        modelled_s += (n_rows != self._last_rows) * self._cost.switch_s()
        is_believed = self._observe_verify(n_rows, now.n_past, seconds.verify)
        if now.ids:
            self._n_since_plain += 1
        elif is_believed:
            self._n_since_plain = 0
        if now.draft.ids:
            n_read = now.n_waiting + now.draft.n_behind
            draft_s = self._cost.draft_s(n_read, len(now.draft.ids))
            modelled_s += draft_s
            is_drafted = now.ids == now.draft.ids[: len(now.ids)]
            spent = modelled_s if is_drafted else draft_s
            self._heads_budget += len(chosen) * is_drafted - spent / now.plain_s
            self._cost.observe_draft(n_read, len(now.draft.ids), seconds.draft)
        self._earn(len(chosen), modelled_s / now.plain_s)
        self._learn(chosen)

    def _observe_verify(self, n_rows: int, n_past: int, seconds: float) -> bool:
        switched = n_rows != self._last_rows
        self._last_rows = n_rows
        return self._cost.observe_verify(n_rows, n_past, seconds, switched=switched)

    def _earn(self, n_tokens: int, time: float) -> None:
        lost = self._deficit - self._tuning.allowance - n_tokens + time
        self._deficit = min(max(0.0, lost), self._tuning.lost_most)
        kept = 1 - 1 / self._tuning.price_rounds
        self._tokens = kept * self._tokens + n_tokens
        self._time = kept * self._time + time
        won = max(0.0, self._tokens / self._time - 1)
        budget = self._heads_budget + self._tuning.heads_each + self._tuning.heads_share * won
        self._heads_budget = max(self._tuning.heads_least, min(budget, self._tuning.heads_most))

    def _learn(self, chosen: Sequence[int]) -> None:
        """Proposals that what came can judge are judged, verified or not."""
        now = self._round
        for k, (drafted, came) in enumerate(zip(now.draft.ids, chosen, strict=False)):
            if k >= now.match.n_certain:
                self._heads.learn(k, now.draft.probs[k], now.agreement[k], drafted == came)
            if drafted != came:
                break
        if now.draft.ids and now.draft.ids[0] != chosen[0]:
            self._n_opening = 0
        if now.draft.ids and len(chosen) > 1:
            self._wait = self._n_parked = (
                self._tuning.first_wait
            )  # heads that pay are asked again at once
        match, n_forced = now.match, now.match.n_forced
        if (
            match.value is None
            and len(now.ids) > n_forced
            and now.ids == now.match.ids[: len(now.ids)]
        ):
            self._n_copied = MAX_COPIED if len(chosen) > len(now.ids) else self._tuning.n_tried
        copies = (
            match.ids[: n_forced + self._tuning.n_learned] if match.value is None else match.ids
        )
        for k, (copied, came) in enumerate(zip(copies, chosen, strict=False)):
            if match.is_forced(k):
                if k >= match.n_certain:
                    self._forced.learn(copied == came)
            elif match.value is not None:
                self._values.learn(match.value, k, copied == came)
            else:
                self._matches.learn(match.length + k, match.support[k], copied == came)
            if copied != came:
                break
