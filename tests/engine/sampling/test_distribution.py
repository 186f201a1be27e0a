"""What is drafted changes how often nothing comes: chi-square tests over sequences of tokens.

The real loop, sampler and verification run on a scripted target whose every sequence has a known
probability, under drafters that draw from good, bad and trimmed distributions of their own. Rules
that are wrong in the ways rules usually are go through the same tests, which must catch them.
`test_penalised_distribution.py` does the same with penalties.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.depth.policy import DepthPolicy, FixedDepth
from mtp_cli.engine.drafters.base import Draft, always
from mtp_cli.engine.drafters.ngram import Match, NgramDrafter
from mtp_cli.engine.generate import Generation
from mtp_cli.engine.grammar.constraint import Constraint, Forced, Unconstrained
from mtp_cli.engine.sampling.candidates import Candidates, point_mass
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.types import Floats, Ids, Row, Rows
from tests.engine.depth.machines import TABLES
from tests.engine.sampling.test_penalties import llama_cpp
from tests.engine.sampling.test_sampler import reference
from tests.engine.scripted import ScriptedDrafter, ScriptedTarget, TableDrafter

pytestmark = pytest.mark.slow

N_IDS = 6
N = 1500
LENGTH = 4  # of the stretches counted: the ids that the next one depends on, and what follows
TRUNCATED = Sampling(temperature=0.8, top_k=4, top_p=0.97, min_p=0.04, seed=3)
WHOLE = Sampling(temperature=1.2, top_k=0, top_p=1.0, min_p=0.0, seed=4)
_rng = np.random.default_rng(71)
TARGET = (1.3 * _rng.standard_normal((N_IDS, N_IDS))).astype(np.float32)
# As long as compiled code asks for: the other ids never come.
LONG_TARGET = np.pad(TARGET, ((0, 0), (0, 2048 - N_IDS)), constant_values=-60.0)
HEADS = {
    "good": (TARGET + 0.5 * _rng.standard_normal(TARGET.shape)).astype(np.float32),
    "bad": (2.0 * _rng.standard_normal(TARGET.shape)).astype(np.float32),
}


class SilentWhereUnsure(TableDrafter):
    """Wrong: it looks at what it has drawn before it lets it be verified."""

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        draft = super().draft(newest, depth, keep_going, propose)
        for position, q in draft.drawn.items():
            if q.prob_of(draft.ids[position]) < 0.5:
                kept = {k: q for k, q in draft.drawn.items() if k < position}
                return Draft(draft.ids[:position], draft.probs[:position], kept)
        return draft


class NoCopies(NgramDrafter):
    """Six ids repeat themselves all the time, and then nothing would be drawn."""

    def match(self, newest: int, depth: int) -> Match:
        return Match()


class Whimsical(FixedDepth):
    """Decides by everything that may decide: earlier ids, probabilities, undrawn ids."""

    def keep_going(self, draft: Draft) -> bool:
        return draft.ids[-1] != 2

    def commit(self, prob: float) -> bool:
        return prob < 0.6

    def choose(self, draft: Draft) -> list[int]:
        n = draft.n_committed
        return draft.ids[: n if draft.ids[n : n + 1] == [1] else n + 1]


COSTS = TABLES["wide BF16"]


@dataclass
class TimedTarget(ScriptedTarget):
    """Its rows take what they take on a machine where drafting pays."""

    now: float = 0.0

    def decode(self, tokens: Sequence[int]) -> Rows:
        self.now += COSTS.target_s[len(tokens) - 1]
        return super().decode(tokens)

    def clock(self) -> float:
        self.now += COSTS.step_s
        return self.now


@dataclass
class Ran:
    """counts: of what followed each beginning; n_accepted: drafted ids that stood"""

    counts: dict[tuple[int, ...], Counter[tuple[int, ...]]]
    n_accepted: int
    n_drawn: int


# `verify_block`, or what a test puts in its place
BlockRule = Callable[
    [
        Sequence[int],
        Mapping[int, Candidates],
        Sequence[Row],
        Callable[[Row], Candidates],
        Callable[[], float],
        Callable[[int], bool],
    ],
    list[int],
]


class Noting:
    """A sampler that counts what was drawn, under another rule if there is one."""

    def __init__(self, sampler: Sampler, rule: BlockRule | None) -> None:
        self._sampler, self._rule = sampler, rule
        self.n_before = sampler.n_before
        self.choose = sampler.choose
        self.propose = sampler.propose
        self.n_drawn = 0

    def verify_block(
        self,
        draft: Sequence[int],
        drawn: Mapping[int, Candidates],
        rows: Sequence[Row],
        is_end: Callable[[int], bool],
    ) -> list[int]:
        self.n_drawn += len(drawn)
        sampler = self._sampler
        if self._rule is None:
            return sampler.verify_block(draft, drawn, rows, is_end)
        return self._rule(
            draft, drawn, rows, lambda row: sampler.candidates(*row), sampler.random, is_end
        )


def run(
    sampling: Sampling,
    new_drafter: Callable[[ScriptedTarget], ScriptedDrafter],
    policy: DepthPolicy,
    *,
    rule: BlockRule | None = None,
    sampler: type[Sampler] = Sampler,
    draws_drafts: bool = True,
    table: Floats = TARGET,
    constraint: Constraint | None = None,
    n: int = N,
) -> Ran:
    """One long answer, cut into stretches. They overlap the rounds in every way.

    rule: None for the sampler's own
    """
    noting = Noting(sampler(sampling, draws_drafts=draws_drafts), rule)
    target = TimedTarget(next_logits=lambda ids: table[ids[-1]], n_ctx=10**6)
    generation = Generation(
        target,
        new_drafter(target),
        noting,
        policy,
        [0],
        max_tokens=n * LENGTH,
        is_end=lambda token: False,
        ngram=NoCopies(),
        constraint=constraint,
        clock=target.clock,
    )
    for _ in generation:
        pass
    counts: dict[tuple[int, ...], Counter[tuple[int, ...]]] = defaultdict(Counter)
    n_beginning = memory(sampling)
    for start in range(0, len(generation.tokens), LENGTH):
        ids = tuple(generation.tokens[start : start + LENGTH])
        counts[ids[:n_beginning]][ids[n_beginning:]] += 1
    return Ran(counts, sum(generation.stats.accepted), noting.n_drawn)


def memory(sampling: Sampling) -> int:
    """How many ids the next one depends on."""
    return max(1, sampling.penalties.n_before)


def sequences(
    sampling: Sampling, beginning: tuple[int, ...], table: Floats
) -> dict[tuple[int, ...], float]:
    """Every sequence that can follow, and its probability."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(LENGTH - len(beginning)):
        found = {
            (*ids, token): p * q
            for ids, p in found.items()
            for token, q in reference(
                row_after((*beginning, *ids), sampling, table), sampling
            ).items()
        }
    return found


def row_after(ids: tuple[int, ...], sampling: Sampling, table: Floats) -> Floats:
    return llama_cpp(sampling.penalties, table[ids[-1]], ids)


def surprise(sampling: Sampling, ran: Ran, table: Floats = TARGET) -> float:
    """How far the counts are from the plain distribution, in standard deviations.

    Pearson's chi-square, made normal (Wilson and Hilferty 1931); inf for what cannot come at all.
    """
    statistic, degrees = 0.0, 0
    for beginning, counts in ran.counts.items():
        expected, n = sequences(sampling, beginning, table), counts.total()
        if not set(counts) <= set(expected):
            return math.inf
        cells = pooled([(counts[ids], n * p) for ids, p in expected.items()])
        statistic += sum((found - mean) ** 2 / mean for found, mean in cells)
        degrees += len(cells) - 1
    spread = 2 / (9 * degrees)
    return (math.pow(statistic / degrees, 1 / 3) - (1 - spread)) / math.sqrt(spread)


def pooled(cells: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Counts and their means, the rarest together until none has a mean below 5."""
    kept = sorted(cells, key=lambda cell: -cell[1])
    while len(kept) > 1 and kept[-1][1] < 5:
        (found, mean), (other, more) = kept.pop(), kept.pop()
        kept.append((found + other, mean + more))
    return kept


MOST = 3.3  # one right rule in 2,000 is further off; the seeds are fixed
LEAST = 6.0  # and one in a thousand million as far as a wrong rule must be


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("head", HEADS)
def test_drawn_drafts(head: str, depth: int) -> None:
    ran = run(TRUNCATED, lambda t: TableDrafter(t, HEADS[head]), FixedDepth(depth))
    assert ran.n_drawn > N / 4
    assert ran.n_accepted > N / 8
    assert surprise(TRUNCATED, ran) < MOST


def test_draws_from_a_trimmed_vocabulary_without_truncation() -> None:
    ids = np.array([1, 2, 5], np.int32)
    ran = run(WHOLE, lambda t: TableDrafter(t, HEADS["good"], ids), FixedDepth(3))
    assert ran.n_accepted > N / 8
    assert surprise(WHOLE, ran) < MOST


@pytest.mark.parametrize("head", HEADS)
def test_rows_that_compiled_code_verifies(head: str) -> None:
    ran = run(TRUNCATED, lambda t: TableDrafter(t, HEADS[head]), FixedDepth(3), table=LONG_TARGET)
    assert ran.n_drawn > N / 4
    assert surprise(TRUNCATED, ran) < MOST


def test_a_policy_that_decides_by_what_it_may() -> None:
    ran = run(TRUNCATED, lambda t: TableDrafter(t, HEADS["good"]), Whimsical(4))
    assert ran.n_drawn > N / 4
    assert surprise(TRUNCATED, ran) < MOST


def test_the_automatic_depth() -> None:
    policy = ExpectedValue(CostModel(COSTS))
    ran = run(TRUNCATED, lambda t: TableDrafter(t, HEADS["good"]), policy)
    assert ran.n_drawn > N / 8
    assert ran.n_accepted > N / 2
    assert surprise(TRUNCATED, ran) < MOST


# Where ids are ruled out

RULED_OUT = np.random.default_rng(72).random((N_IDS, N_IDS)) < 0.4
RULED_OUT[np.arange(N_IDS), TARGET.argmax(axis=1)] = [True, True, False, False, True, False]
RULED_OUT[4, [0, 1, 2, 4, 5]], RULED_OUT[4, 3] = True, False  # a single id may follow 4
CONSTRAINED = np.where(RULED_OUT, -np.inf, TARGET).astype(np.float32)


class AfterEach(Unconstrained):
    """Which ids may follow, by the one before; nothing is ever complete."""

    is_complete = False

    def __init__(self) -> None:
        self._last = 0

    def restrict(self, logits: Floats, drafted: Sequence[int], ids: Ids | None = None) -> None:
        ruled_out = RULED_OUT[[self._last, *drafted][-1]]
        if ids is not None:
            logits[ruled_out[ids]] = -np.inf
        else:
            logits[:N_IDS][ruled_out] = -np.inf

    def n_fitting(self, ids: Sequence[int]) -> int:
        last, n = self._last, 0
        while n < len(ids) and not RULED_OUT[last, ids[n]]:
            last, n = ids[n], n + 1
        return n

    def forced(self) -> Forced:
        allowed = np.flatnonzero(~RULED_OUT[self._last]).tolist()
        return Forced(allowed, 1) if len(allowed) == 1 else Forced([], 0)

    def accept(self, ids: Sequence[int]) -> int:
        assert self.n_fitting(ids) == len(ids)
        self._last = ids[-1]
        return len(ids)


@pytest.mark.parametrize("table", [TARGET, LONG_TARGET], ids=["numpy", "compiled"])
@pytest.mark.parametrize("head", HEADS)
def test_what_is_ruled_out_never_comes_and_the_rest_as_often_as_it_should(
    head: str, table: Floats
) -> None:
    policy = FixedDepth(3)
    ran = run(
        TRUNCATED,
        lambda t: TableDrafter(t, HEADS[head]),
        policy,
        table=table,
        constraint=AfterEach(),
    )
    assert ran.n_drawn > N / 8
    assert ran.n_accepted > N / 8
    assert surprise(TRUNCATED, ran, CONSTRAINED) < MOST


@pytest.mark.parametrize("draws_drafts", [True, False])
def test_what_is_forced_beside_drawn_drafts(draws_drafts: bool) -> None:
    ran = run(
        TRUNCATED,
        lambda t: TableDrafter(t, HEADS["good"], np.array([1, 2, 3, 5], np.int32)),
        ExpectedValue(CostModel(COSTS)),
        constraint=AfterEach(),
        draws_drafts=draws_drafts,
    )
    assert ran.n_accepted > N / 8
    assert surprise(TRUNCATED, ran, CONSTRAINED) < MOST


def test_an_unconstrained_answer_is_another() -> None:
    ran = run(TRUNCATED, lambda t: TableDrafter(t, HEADS["good"]), FixedDepth(2))
    assert surprise(TRUNCATED, ran, CONSTRAINED) > LEAST


# Wrong in the usual ways


def test_a_draw_that_was_looked_at_is_a_selection() -> None:
    ran = run(TRUNCATED, lambda t: SilentWhereUnsure(t, HEADS["good"]), FixedDepth(2))
    assert surprise(TRUNCATED, ran) > LEAST


class TooLate(FixedDepth):
    def choose(self, draft: Draft) -> list[int]:
        return draft.ids[:1]


def test_a_policy_that_drops_a_draw_is_a_bug() -> None:
    with pytest.raises(ValueError, match="dropped a drawn id"):
        run(TRUNCATED, lambda t: TableDrafter(t, HEADS["good"]), TooLate(2), n=10)


Keep = Callable[[float, float], float]
Rest = Callable[[Candidates, Candidates], Candidates]


def one_by_one(keep: Keep, rest: Rest) -> BlockRule:
    """Token-level rejection with a chance to keep (of p(x), q(x)) and what else is drawn from."""

    def rule(
        draft: Sequence[int],
        drawn: Mapping[int, Candidates],
        rows: Sequence[Row],
        candidates: Callable[[Row], Candidates],
        random: Callable[[], float],
        is_end: Callable[[int], bool],
    ) -> list[int]:
        for position, token in enumerate(draft):
            p, q = candidates(rows[position]), drawn.get(position) or point_mass(token)
            if random() >= keep(p.prob_of(token), q.prob_of(token)):
                return [*draft[:position], rest(p, q).token_at(random())]
        return [*draft, candidates(rows[len(draft)]).token_at(random())]

    return rule


def right_keep(p: float, q: float) -> float:
    return min(1.0, p / q)


def right_rest(p: Candidates, q: Candidates) -> Candidates:
    return p.reweighted(p.excess_over(q, 1.0))


def block_without_the_surplus(
    draft: Sequence[int],
    drawn: Mapping[int, Candidates],
    rows: Sequence[Row],
    candidates: Callable[[Row], Candidates],
    random: Callable[[], float],
    is_end: Callable[[int], bool],
) -> list[int]:
    """Block verification that forgets the minimum: prefixes count for more than they may."""
    kept, n_accepted, last = 1.0, 0, candidates(rows[0])
    for position, token in enumerate(draft):
        p, q = candidates(rows[position]), drawn[position]
        kept *= p.prob_of(token) / q.prob_of(token)
        if random() < kept:
            n_accepted, last = position + 1, candidates(rows[position + 1])
    return [*draft[:n_accepted], last.token_at(random())]


RULES: dict[str, BlockRule] = {
    "accepts with q/p": one_by_one(lambda p, q: min(1.0, q / p) if p else 0.0, right_rest),
    "accepts with p": one_by_one(lambda p, q: p, right_rest),
    "draws the rest from p": one_by_one(right_keep, lambda p, q: p),
    "draws the rest from q": one_by_one(right_keep, lambda p, q: q),
    "forgets to clip": block_without_the_surplus,
}


def test_rejection_token_by_token_is_right_too() -> None:
    ran = run(
        TRUNCATED,
        lambda t: TableDrafter(t, HEADS["good"]),
        FixedDepth(2),
        rule=one_by_one(right_keep, right_rest),
    )
    assert surprise(TRUNCATED, ran) < MOST


@pytest.mark.parametrize("name", RULES)
def test_a_wrong_rule_is_caught(name: str) -> None:
    ran = run(TRUNCATED, lambda t: TableDrafter(t, HEADS["good"]), FixedDepth(2), rule=RULES[name])
    assert surprise(TRUNCATED, ran) > LEAST
