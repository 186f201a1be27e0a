"""Chi-square tests of penalised text, whose every id depends on more than the one before it.

Penalties change what comes, and how often; drafts must not. `test_distribution.py` has the tests
themselves, and says what they do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import pytest

from mtp_cli.engine.depth.policy import FixedDepth
from mtp_cli.engine.sampling.candidates import Candidates
from mtp_cli.engine.sampling.proposals import Proposal
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.sampling.verify import verify_block
from mtp_cli.engine.types import Floats, Ids, Row
from tests.engine.sampling.test_distribution import HEADS, LEAST, MOST, TARGET, N, run, surprise
from tests.engine.scripted import TableDrafter

pytestmark = pytest.mark.slow

PENALISED = Sampling(
    temperature=1.0,
    top_k=5,
    top_p=0.98,
    min_p=0.02,
    seed=6,
    penalty_last_n=2,
    penalty_repeat=1.5,
    penalty_freq=0.6,
    penalty_present=0.4,
)


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("draws_drafts", [True, False])
def test_penalties(depth: int, draws_drafts: bool) -> None:
    ran = run(
        PENALISED,
        lambda t: TableDrafter(t, HEADS["good"]),
        FixedDepth(depth),
        draws_drafts=draws_drafts,
    )
    assert (ran.n_drawn > N / 4) == draws_drafts
    assert ran.n_accepted > N / 8
    assert surprise(PENALISED, ran) < MOST


class BlindHeads(Sampler):
    """Drafts without a thought of penalties."""

    def propose(
        self,
        logits: Floats,
        ids: Ids | None,
        before: Sequence[int],
        commit: Callable[[float], bool],
        prob: float | None = None,
    ) -> Proposal:
        return super().propose(logits, ids, (), commit, prob)


def test_heads_that_are_not_penalised_lose_acceptance_and_nothing_else() -> None:
    ran, blind = (
        run(PENALISED, lambda t: TableDrafter(t, TARGET), FixedDepth(3), sampler=sampler)
        for sampler in (Sampler, BlindHeads)
    )
    assert surprise(PENALISED, ran) < MOST
    assert surprise(PENALISED, blind) < MOST
    assert blind.n_accepted / blind.n_drawn < 0.8 * ran.n_accepted / ran.n_drawn


def without_the_draft(
    draft: Sequence[int],
    drawn: Mapping[int, Candidates],
    rows: Sequence[Row],
    candidates: Callable[[Row], Candidates],
    random: Callable[[], float],
    is_end: Callable[[int], bool],
) -> list[int]:
    """Every row penalised for what was before the draft, and not for the drafted ids."""
    stale = [Row(row.logits, rows[0].before) for row in rows]
    return verify_block(draft, drawn, stale, candidates, random, is_end)


def test_penalties_that_forget_the_draft_are_caught() -> None:
    """Nothing is impossible here, so that it is the counts that tell."""
    sampling = dataclasses.replace(PENALISED, top_k=0, top_p=1.0, min_p=0.0)
    right, wrong = (
        run(sampling, lambda t: TableDrafter(t, HEADS["good"]), FixedDepth(2), rule=rule)
        for rule in (verify_block, without_the_draft)
    )
    assert surprise(sampling, right) < MOST
    assert LEAST < surprise(sampling, wrong) < math.inf
