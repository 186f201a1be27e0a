"""What an engine knows of a machine, and when it finds that out again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from mtp_cli.engine.depth import calibrate
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.calibrate import TABLES as KEPT
from mtp_cli.engine.depth.calibrate import table_facts
from mtp_cli.engine.depth.cost import CostTable
from mtp_cli.engine.depth.experience import Experience, Situation
from mtp_cli.engine.depth.learning import Learning
from tests.engine.depth.machines import N_MAX, TABLES, made_up
from tests.engine.depth.simulation import Machine, RecordedHeads, RecordedTarget, replay

FACTS = ("a model", "its heads")
MACHINE = TABLES["few rows Q4_0"]
# As one was measured while another program took both cores
DISTURBED = dataclasses.replace(
    MACHINE,
    target_s=tuple(2 * seconds for seconds in (*MACHINE.target_s[:1] * 4, *MACHINE.target_s[4:])),
    growth_s=(4e-5,) * N_MAX,
    switch_s=5e-3,
)
SITUATION = Situation(is_greedy=True, draws_drafts=False, penalises=False, is_exact=False)
Open = Callable[..., Experience]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """An engine's, in a process that found this table kept by an earlier one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = Machine(MACHINE)
    trace = made_up(8, 0.5)
    target, heads = RecordedTarget(machine, trace.tokens), RecordedHeads(machine, trace)

    def experience(table: CostTable, n_threads: int = 2) -> Experience:
        KEPT.put(table_facts(FACTS, target, N_MAX), table)
        return Experience(
            FACTS, target, heads, n_max=N_MAX, n_threads=lambda: n_threads, n_threads_most=2
        )

    return experience


def kept() -> CostTable | None:
    target = RecordedTarget(Machine(MACHINE), [])
    return KEPT.get(table_facts(FACTS, target, N_MAX))


def answer(experience: Experience, n_tokens: int = 300, load: float = 1.0) -> type:
    """Who decided in it at first."""
    policy = experience.policy("auto", SITUATION)
    replay(made_up(n_tokens, 0.6), Machine(MACHINE, lambda now: load), policy)
    return type(policy)


def test_costs_that_were_measured_on_a_busy_machine_are_learned_anew(opened: Open) -> None:
    experience = opened(DISTURBED)
    assert answer(experience) is ExpectedValue
    assert answer(experience, n_tokens=900) is Learning
    assert answer(experience) is ExpectedValue
    found = kept()
    assert found is not None
    for n in (2, 3, 4, 5):
        multiple = MACHINE.target_s[n - 1] / MACHINE.target_s[0]
        assert found.target_s[n - 1] / found.target_s[0] == pytest.approx(multiple, rel=0.2)
    assert found.switch_s < 2 * MACHINE.switch_s


def test_a_process_of_one_answer_leaves_no_such_costs(opened: Open) -> None:
    experience = opened(DISTURBED)
    answer(experience)
    assert kept() == DISTURBED
    experience.keep()
    assert kept() is None


def test_who_asks_for_costs_gets_none_that_turned_out_wrong(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    experience = opened(DISTURBED)
    assert experience.costs().table == DISTURBED
    answer(experience)
    monkeypatch.setattr(calibrate, "calibrate", lambda *_: MACHINE)
    assert experience.costs().table == MACHINE
    assert kept() == MACHINE


@pytest.mark.parametrize("load", [1.0, 1.1, 3.0])
def test_right_costs_stay_whatever_the_load(opened: Open, load: float) -> None:
    experience = opened(MACHINE)
    for _ in range(4):
        assert answer(experience, load=load) is ExpectedValue
    experience.keep()
    assert kept() == MACHINE


def test_fewer_threads_refute_nothing(opened: Open) -> None:
    """Costs that are kept are those of all threads; with one, rows cost otherwise."""
    experience = opened(DISTURBED, n_threads=1)
    for _ in range(3):
        assert answer(experience) is ExpectedValue
    experience.keep()
    assert kept() == DISTURBED


def test_a_machine_that_is_another_one_in_each_answer_is_not_learned_in_each(opened: Open) -> None:
    """Where loads come and go, what was learned under one is wrong without it."""
    experience = opened(DISTURBED)
    who = [answer(experience, 900, load) for load in (1.0, 4.0) * 8]
    assert 1 <= who.count(Learning) <= 4
