"""Where one pass drafts a block, depth costs rows and no steps: costs and policy know it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from mtp_cli.bench.trace import Trace
from mtp_cli.engine.depth import calibrate
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.futures import OfBlocks, OfPositions
from mtp_cli.engine.depth.policy import DepthPolicy, FixedDepth
from mtp_cli.engine.drafters.base import Draft, always
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_COPIED, MAX_DEPTH
from tests.engine.depth.machines import N_MAX, TABLES, made_up
from tests.engine.depth.simulation import Machine, plain_s, replay
from tests.engine.depth.test_calibrate import Bench, Heads
from tests.engine.depth.test_learning import learned

_PASS = 0.4  # of a plain round
BLOCKS = {
    name: dataclasses.replace(
        TABLES[name], first_s=_PASS * TABLES[name].target_s[0], row_s=1e-5, step_s=0.0
    )
    for name in ("wide BF16", "few rows Q4_0", "Q8_0")
}
every_machine = pytest.mark.parametrize("table", BLOCKS.values(), ids=BLOCKS)


def policy_of(table: CostTable) -> ExpectedValue:
    return ExpectedValue(CostModel(table), n_drafted=MAX_COPIED)


def over_plain(trace: Trace, table: CostTable, policy: DepthPolicy) -> float:
    return plain_s(trace, table) / replay(trace, Machine(table), policy).stats.decode_s


def told(n_tokens: int, mean: float, seed: int = 0) -> Trace:
    """Blocks that are sure of the first `mean` ids on average, now of few and now of many."""
    rng = np.random.default_rng(seed)
    trace = made_up(n_tokens, right=1.0, n_ids=MAX_COPIED)
    drafts = []
    for draft in trace.drafts:
        n_sure = int(min(rng.geometric(1 / mean) - 1, len(draft.ids)))
        probs = [0.97] * n_sure + [0.2] * (len(draft.ids) - n_sure)
        stands = np.logical_and.accumulate(rng.random(len(probs)) < probs)
        ids = [i if s else -1 for i, s in zip(draft.ids, stands, strict=True)]
        drafts.append(Draft(ids, probs))
    return dataclasses.replace(trace, drafts=drafts)


@dataclass
class BlockHeads(Heads):
    """One pass, whatever the depth."""

    max_depth: int = MAX_COPIED

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        super().draft(newest, 1)
        return Draft([0] * depth, [0.5] * depth, is_block=True)


@every_machine
def test_a_pass_is_measured_and_no_step(table: CostTable) -> None:
    bench = Bench(table)
    found = calibrate.calibrate(bench, BlockHeads(bench), N_MAX, bench.clock)
    assert found.step_s == 0
    assert found.first_s == pytest.approx(table.first_s)
    assert found.row_s == pytest.approx(table.row_s)
    assert CostModel(found).draft_s(0, 15) == pytest.approx(table.first_s)


@every_machine
def test_it_is_learned_while_an_answer_is_given(table: CostTable) -> None:
    found, _ = learned(table)
    assert found.step_s == 0
    assert found.first_s == pytest.approx(table.first_s, rel=0.1)


def test_more_is_asked_of_a_block_than_of_heads() -> None:
    block, heads = BLOCKS["wide BF16"], TABLES["wide BF16"]
    assert policy_of(block).begin(15, 10, 0, Match()) == MAX_COPIED
    assert policy_of(block).begin(5, 10, 0, Match()) == 5
    assert policy_of(heads).begin(15, 10, 0, Match()) == MAX_DEPTH


def test_no_more_than_can_be_verified() -> None:
    """A recurrent target keeps few states to go back to."""
    table = BLOCKS["wide BF16"]
    few = dataclasses.replace(table, target_s=table.target_s[:9], growth_s=table.growth_s[:9])
    assert policy_of(few).begin(15, 10, 0, Match()) == 8


@every_machine
@pytest.mark.parametrize("confidence", [0.02, 0.5, 0.95])
def test_useless_blocks_cost_next_to_nothing(table: CostTable, confidence: float) -> None:
    trace = made_up(500, right=0.0, confidence=confidence, n_ids=MAX_COPIED)
    assert over_plain(trace, table, policy_of(table)) > 0.96


def test_long_blocks_are_verified_where_they_stand() -> None:
    table = BLOCKS["wide BF16"]
    trace = made_up(400, right=0.97, n_ids=MAX_COPIED)
    machine = Machine(table)
    replay(trace, machine, policy_of(table))
    assert max(machine.verified) > 1 + MAX_DEPTH
    eight = ExpectedValue(CostModel(table), n_drafted=MAX_DEPTH)
    assert over_plain(trace, table, policy_of(table)) > over_plain(trace, table, eight)


@every_machine
def test_its_confidences_decide_how_many_are_verified(table: CostTable) -> None:
    """No depth that is always the same does as well."""
    trace = told(600, mean=5)
    fixed = max(over_plain(trace, table, FixedDepth(depth)) for depth in range(N_MAX))
    assert over_plain(trace, table, policy_of(table)) > 1.15 * fixed


def test_what_came_together_is_expected_together() -> None:
    """Half of the blocks are right throughout, half nowhere: worth more than all in half."""
    together, apart = (kind(4, TUNING.policy, random.Random(0)) for kind in (OfBlocks, OfPositions))
    for n_block in range(64):
        for k in range(4):
            together.note(k, float(n_block % 2))
            apart.note(k, float(n_block % 2))
    for futures in (together, apart):
        futures.sample()
    assert sum(together.gains(0)[3][0]) > 1.5 * sum(apart.gains(0)[3][0])
    assert {0.0, 4.0} == set(together.gains(0)[3][0])


def test_what_was_cut_short_promises_nothing_more() -> None:
    futures = OfBlocks(4, TUNING.policy, random.Random(0))
    for _ in range(64):
        for k in range(2):
            futures.note(k, 0.5)
    futures.sample()
    assert [highest for _, highest in futures.gains(0)] == [0.5, 0.75, 0.75, 0.75]
