"""The cost model: what is measured is predicted, stalls are not believed, real changes are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mtp_cli.engine.depth.cost import CostModel, CostTable
from tests.engine.depth.machines import N_MAX, TABLES

TABLE = TABLES["Q8_0"]
COUNTS = range(1, N_MAX + 1)


def observed(cost: CostModel, factor: float, n_rounds: int, counts: tuple[int, ...] = (1,)) -> None:
    for index in range(n_rounds):
        n = counts[index % len(counts)]
        cost.observe_verify(n, 0, factor * TABLE.target_s[n - 1], switched=False)


def test_predicts_what_was_measured() -> None:
    cost = CostModel(TABLE)
    assert [cost.verify_s(n, 0) for n in COUNTS] == list(TABLE.target_s)
    assert cost.draft_s(0, 1) == TABLE.first_s
    assert cost.draft_s(10, 4) == pytest.approx(TABLE.first_s + 10 * TABLE.row_s + 3 * TABLE.step_s)


def test_a_longer_context_costs_more_for_every_row() -> None:
    cost = CostModel(TABLE)
    for n in COUNTS:
        grown = cost.verify_s(n, 1000) - cost.verify_s(n, 0)
        assert grown == pytest.approx(1000 * TABLE.growth_s[n - 1])


@pytest.mark.parametrize("stall", [3.0, 100.0])
def test_stalls_are_not_believed(stall: float) -> None:
    cost = CostModel(TABLE)
    observed(cost, 1.0, 10)
    for _ in range(3):
        observed(cost, stall, 1)
        observed(cost, 1.0, 6)
    assert cost.verify_s(1, 0) == pytest.approx(TABLE.target_s[0], rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_another_load_is_followed_for_row_counts_not_seen_since(factor: float) -> None:
    cost = CostModel(TABLE)
    observed(cost, 1.0, 50, (1, 2, 3))
    observed(cost, factor, 20, (1, 3))
    for n in COUNTS:
        assert cost.verify_s(n, 0) == pytest.approx(factor * TABLE.target_s[n - 1], rel=0.15)


def test_one_row_count_can_differ_from_its_measurement() -> None:
    cost = CostModel(TABLE)
    for _ in range(100):
        observed(cost, 1.0, 2)
        cost.observe_verify(4, 0, 1.3 * TABLE.target_s[3], switched=False)
    assert cost.verify_s(4, 0) == pytest.approx(1.3 * TABLE.target_s[3], rel=0.1)
    for n in (1, 2, 8):
        assert cost.verify_s(n, 0) == pytest.approx(TABLE.target_s[n - 1], rel=0.1)


def test_a_row_count_that_was_disturbed_is_not_held_dear_for_ever() -> None:
    """It is avoided then, so that nothing but time can tell that it is as cheap as before."""
    cost = CostModel(TABLE)
    observed(cost, 1.0, 20, (1, 2))
    for _ in range(10):
        observed(cost, 1.0, 2)
        cost.observe_verify(2, 0, 1.5 * TABLE.target_s[1], switched=False)
    assert cost.verify_s(2, 0) > 1.3 * TABLE.target_s[1]
    observed(cost, 1.0, 100)
    assert cost.verify_s(2, 0) == pytest.approx(TABLE.target_s[1], rel=0.05)


@pytest.mark.parametrize("load", [0.8, 1.0, 4.0])
def test_noise_and_load_refute_next_to_nothing(load: float) -> None:
    """Two stalls of one row count in a row are believed for a moment."""
    n_refuted = 0
    for seed in range(5):
        rng, cost = np.random.default_rng(seed), CostModel(TABLE)
        for _ in range(2000):
            stall = 8 if rng.random() < 0.02 else 1
            factor = load * stall * float(np.exp(rng.normal(0, 0.2)))
            observed(cost, factor, 1, (int(rng.integers(1, 6)),))
            n_refuted += cost.is_refuted()
    assert n_refuted < 0.01 * 5 * 2000


def test_a_table_that_was_measured_on_a_busy_machine_is_refuted() -> None:
    cost = CostModel(TABLE)
    observed(cost, 0.55, 20, (1, 2, 3))
    assert cost.is_refuted()


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_one_row_count_that_was_measured_wrong_refutes_a_table(factor: float) -> None:
    cost = CostModel(TABLE)
    for _ in range(30):
        observed(cost, 1.0, 2)
        cost.observe_verify(4, 0, factor * TABLE.target_s[3], switched=False)
    assert cost.is_refuted()


def test_what_a_switch_takes_is_not_taken_for_load() -> None:
    cost = CostModel(TABLE)
    for n in (1, 3) * 40:
        seconds = TABLE.target_s[n - 1] + TABLE.switch_s
        cost.observe_verify(n, 0, seconds, switched=True)
    assert cost.verify_s(1, 0) == pytest.approx(TABLE.target_s[0], rel=0.001)
    assert cost.switch_s() == pytest.approx(TABLE.switch_s, rel=0.001)
    observed(cost, 2.0, 20)
    assert cost.switch_s() == pytest.approx(2 * TABLE.switch_s, rel=0.1)


def test_the_heads_have_a_level_of_their_own() -> None:
    cost = CostModel(TABLE)
    for _ in range(20):
        cost.observe_draft(0, 1, 2 * TABLE.first_s)
    assert cost.step_s() == pytest.approx(2 * TABLE.step_s, rel=0.05)
    assert cost.verify_s(1, 0) == TABLE.target_s[0]


def test_steps_that_were_disturbed_when_they_were_measured_do_not_stay_dear() -> None:
    """A policy that holds them dear drafts one id at a time, which says nothing of steps."""
    cost = CostModel(replace(TABLE, first_s=30 * TABLE.first_s, step_s=90 * TABLE.step_s))
    for _ in range(40):
        cost.observe_draft(0, 1, TABLE.first_s)
    assert TABLE.step_s <= cost.step_s() <= 1.05 * TABLE.first_s


def test_a_table_without_heads_makes_drafting_unaffordable() -> None:
    cost = CostModel(CostTable((0.01, 0.02), (0.0, 0.0)))
    assert cost.first_s(0) == cost.step_s() == float("inf")


def test_each_number_of_threads_is_a_machine_of_its_own() -> None:
    """What rounds take with fewer is learned apart, and what they took with all comes back."""
    n_threads = 2
    cost = CostModel(TABLE, n_threads=lambda: n_threads)
    observed(cost, 1.1, 20, (1, 3))
    n_threads = 1
    observed(cost, 1.8, 20, (1, 3))
    assert cost.verify_s(3, 0) == pytest.approx(1.8 * TABLE.target_s[2], rel=0.05)
    n_threads = 2
    assert cost.verify_s(3, 0) == pytest.approx(1.1 * TABLE.target_s[2], rel=0.05)
