"""Costs are learned while an answer is given: the machine is found again, at a bounded price."""

from __future__ import annotations

import dataclasses

import pytest

from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.exactness import Exactness
from mtp_cli.engine.depth.learning import Learning
from mtp_cli.engine.depth.policy import DepthPolicy
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH
from tests.engine.depth.machines import N_MAX, TABLES, copied, made_up
from tests.engine.depth.simulation import Machine, plain_s, replay

every_machine = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


class Known:
    """Takes a table when it is known, and decides by it from then on."""

    def __init__(self) -> None:
        self.tables: list[tuple[CostTable, bool]] = []

    def __call__(self, table: CostTable, is_partial: bool) -> DepthPolicy:
        self.tables.append((table, is_partial))
        return ExpectedValue(CostModel(table))


def learning(exactness: Exactness | None = None, n_drafted: int = MAX_DEPTH) -> Learning:
    return Learning(N_MAX, n_drafted, exactness=exactness)


def flat(table: CostTable) -> CostTable:
    """The same, whatever the context: a long answer would tell what rows cost in the middle."""
    return dataclasses.replace(table, growth_s=(0.0,) * N_MAX)


def learned(table: CostTable, n_tokens: int = 1500) -> tuple[CostTable, Machine]:
    """What an answer by useless heads, in which nothing repeats itself, teaches."""
    table = flat(table)
    known, machine, policy = Known(), Machine(table), learning()
    policy.open_answer(known)
    replay(made_up(n_tokens, right=0.0), machine, policy)
    ((found, is_partial),) = known.tables
    assert not is_partial
    return found, machine


@every_machine
def test_finds_the_machine_again(table: CostTable) -> None:
    found, _ = learned(table)
    for n in (1, 2, 3, 4, 5, 8, 16):
        multiple = table.target_s[n - 1] / table.target_s[0]
        assert found.target_s[n - 1] / found.target_s[0] == pytest.approx(multiple, rel=0.2)
    assert found.first_s == pytest.approx(table.first_s, rel=0.3)
    assert found.step_s == pytest.approx(table.step_s, rel=0.2)


def test_rows_that_are_tried_choose_different_experts_as_a_drafts_do() -> None:
    """Heads draft fewer than are tried, and nothing can be copied: other ids make up the number."""
    table = dataclasses.replace(TABLES["few rows Q8_0"], growth_s=(0.0,) * N_MAX)
    known, policy = Known(), learning()
    policy.open_answer(known)
    replay(made_up(1500, right=1.0), Machine(table, is_mixture=True), policy)
    ((found, _),) = known.tables
    for n in TUNING.calibration.counts:
        assert found.target_s[n - 1] == pytest.approx(table.target_s[n - 1], rel=0.02)


@every_machine
def test_measuring_takes_a_bounded_share_beyond_plain_rounds(table: CostTable) -> None:
    """Until costs are known; heads are useless, so that nothing is won back."""
    known, machine, policy = Known(), Machine(table), learning()
    policy.open_answer(known)
    trace = made_up(150, right=0.0)
    replay(trace, machine, policy)
    tuning = TUNING.learning
    dearest_s = 2 * (table.target_s[-1] + table.first_s + 4 * table.step_s + table.switch_s)
    extra_s = machine.idle_s - plain_s(trace, table)
    assert extra_s <= tuning.first_s + (tuning.share + 0.12) * machine.idle_s + dearest_s


@every_machine
def test_good_heads_pay_from_the_first_answer_on(table: CostTable) -> None:
    known, machine, policy = Known(), Machine(table), learning()
    policy.open_answer(known)
    trace = made_up(600, right=0.95)
    stats = replay(trace, machine, policy).stats
    assert known.tables
    informed = Machine(table)
    best = replay(trace, informed, ExpectedValue(CostModel(table))).stats
    assert stats.decode_s < 1.35 * best.decode_s


def test_it_goes_on_where_the_last_answer_ended() -> None:
    known, policy = Known(), learning()
    table = TABLES["few rows Q4_1"]
    for _ in range(12):
        policy.open_answer(known)
        replay(made_up(20, right=0.3), Machine(table), policy)
    assert len(known.tables) == 1


@every_machine
def test_without_heads_nothing_is_tried_where_nothing_can_be_copied(table: CostTable) -> None:
    known, machine, policy = Known(), Machine(table), learning(n_drafted=0)
    policy.open_answer(known)
    replay(made_up(500, right=0.0), machine, policy)
    assert set(machine.verified) == {1}
    assert not known.tables


@every_machine
def test_without_heads_copies_pay_from_the_first_answer_on(table: CostTable) -> None:
    table, known, policy = flat(table), Known(), learning(n_drafted=0)
    policy.open_answer(known)
    trace = copied(400, 80)
    stats = replay(trace, Machine(table), policy).stats
    ((found, is_partial),) = known.tables
    assert not is_partial
    assert found.step_s == found.first_s == float("inf")
    multiples = [found.target_s[n - 1] / found.target_s[0] for n in TUNING.learning.copied]
    there = [table.target_s[n - 1] / table.target_s[0] for n in TUNING.learning.copied]
    assert multiples == pytest.approx(there, rel=0.2)
    best = replay(trace, Machine(table), ExpectedValue(CostModel(table), n_drafted=0)).stats
    assert stats.decode_s < 1.35 * best.decode_s


def test_counts_that_are_refused_are_not_tried() -> None:
    exactness = Exactness(N_MAX)
    for n_rows in TUNING.exactness.counts:
        for _ in range(TUNING.exactness.n_proofs):
            exactness.note(n_rows, n_rows < 4)
    known, machine, policy = Known(), Machine(TABLES["Q8_0"]), learning(exactness)
    policy.open_answer(known)
    replay(made_up(200, right=0.0), machine, policy)
    assert max(machine.verified) == 3
    ((_, is_partial),) = known.tables
    assert is_partial


def test_what_was_seen_with_other_threads_is_forgotten() -> None:
    """Other programs take a core when half of it is learned: rows are dearer from then on."""
    table = dataclasses.replace(TABLES["few rows Q8_0"], growth_s=(0.0,) * N_MAX)
    slower = tuple(s * (1 + 0.1 * n) for n, s in enumerate(table.target_s))
    busy = dataclasses.replace(table, target_s=slower)
    machine, known = Machine(table), Known()

    def n_threads() -> int:
        if len(machine.verified) < 30:
            return 2
        machine.table = busy
        return 1

    policy = Learning(N_MAX, MAX_DEPTH, n_threads=n_threads)
    policy.open_answer(known)
    replay(made_up(1500, right=0.0), machine, policy)
    ((found, _),) = known.tables
    for n in (1, 2, 4, 8, 16):
        assert found.target_s[n - 1] == pytest.approx(busy.target_s[n - 1], rel=0.1)
