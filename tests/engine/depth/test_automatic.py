"""The automatic depth, under simulated time: never slower than plain, close to what is possible.

Every replay also checks that the answer is the recorded one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.bench.trace import Trace
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.policy import DepthPolicy, FixedDepth, Seconds
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.grammar.constraint import Recalled
from mtp_cli.engine.sampling.candidates import point_mass
from mtp_cli.engine.types import MAX_DEPTH
from tests.engine.depth.machines import N_MAX, TABLES, bursts, false_matches, joined, made_up
from tests.engine.depth.simulation import Machine, bound_s, load_traces, plain_s, replay

RECORDED = load_traces(Path(__file__).parent / "traces" / "smollm2.json")
every_machine = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def automatic(table: CostTable) -> ExpectedValue:
    return ExpectedValue(CostModel(table))


def over_plain(trace: Trace, table: CostTable, policy: ExpectedValue | FixedDepth) -> float:
    return plain_s(trace, table) / replay(trace, Machine(table), policy).stats.decode_s


def over_bound(trace: Trace, table: CostTable) -> float:
    generation = replay(trace, Machine(table), automatic(table))
    return bound_s(trace, table) / generation.stats.decode_s


def geomean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


@every_machine
@pytest.mark.parametrize("right", [0.5, 1.0])
def test_an_answer_says_how_many_times_plain_it_was(table: CostTable, right: float) -> None:
    trace, cost = made_up(300, right=right), CostModel(table)
    stats = replay(trace, Machine(table), ExpectedValue(cost), cost).stats
    if any(stats.verified):
        assert stats.times_plain == pytest.approx(plain_s(trace, table) / stats.decode_s, rel=0.03)
    else:
        assert stats.times_plain is None


@every_machine
def test_perfect_heads_come_close_to_the_bound(table: CostTable) -> None:
    assert over_bound(made_up(300, right=1.0), table) > 0.93


@every_machine
@pytest.mark.parametrize("confidence", [0.02, 0.5, 0.95])
@pytest.mark.slow
def test_useless_heads_cost_next_to_nothing(table: CostTable, confidence: float) -> None:
    trace = made_up(500, right=0.0, confidence=confidence)
    assert over_plain(trace, table, automatic(table)) > (0.97 if confidence < 0.9 else 0.945)


@every_machine
@pytest.mark.parametrize(("n_right", "n_wrong"), [(30, 60), (8, 16), (3, 6)])
@pytest.mark.slow
def test_heads_that_are_right_in_bursts_cost_next_to_nothing(
    table: CostTable, n_right: int, n_wrong: int
) -> None:
    """They are as sure when they are wrong: what they win is soon lost again."""
    trace = bursts(600, n_right, n_wrong)
    assert over_plain(trace, table, automatic(table)) > 0.97


@every_machine
@pytest.mark.parametrize("size", [2, 3, 6, 12, 20])
@pytest.mark.slow
def test_copies_that_break_off_cost_next_to_nothing(table: CostTable, size: int) -> None:
    assert over_plain(false_matches(600, size), table, automatic(table)) > 0.98


@every_machine
@pytest.mark.parametrize(("noise", "stalls"), [(0.15, 0.0), (0.0, 0.02), (0.3, 0.02)])
@pytest.mark.parametrize("right", [0.0, 0.6, 0.9])
@pytest.mark.slow
def test_a_noisy_clock_makes_nothing_slower_than_plain(
    table: CostTable, noise: float, stalls: float, right: float
) -> None:
    """Judged by what the machine would have taken undisturbed."""
    rng = np.random.default_rng(1)

    def load(now: float) -> float:
        return float(np.exp(rng.normal(0, noise))) * (8 if rng.random() < stalls else 1)

    trace = made_up(600, right)
    machine = Machine(table, load)
    replay(trace, machine, automatic(table))
    assert plain_s(trace, table) / machine.idle_s > 0.985


@pytest.mark.slow
def test_a_noisy_clock_takes_little_of_what_drafting_gives() -> None:
    """As on a machine with other guests: rows that differ by a tenth look alike for a moment."""
    table = TABLES["few rows Q4_0"]

    def taken_s(noise: float, stalls: float) -> float:
        rng, policy, taken = np.random.default_rng(1), automatic(table), 0.0

        def load(now: float) -> float:
            return float(np.exp(rng.normal(0, noise))) * (3 if rng.random() < stalls else 1)

        for recorded in RECORDED:
            policy.open_answer()
            machine = Machine(table, load)
            replay(recorded.trace, machine, policy)
            taken += machine.idle_s
        return taken

    assert taken_s(0.0, 0.0) / taken_s(0.2, 0.02) > 0.96


@every_machine
@pytest.mark.slow
def test_a_load_that_comes_and_goes_makes_nothing_slower_than_plain(table: CostTable) -> None:
    period = 100 * table.target_s[0]

    def load(now: float) -> float:
        return 4.0 if int(now / period) % 2 else 1.0

    trace = made_up(600, 0.7)
    machine = Machine(table, load)
    replay(trace, machine, automatic(table))
    calm = plain_s(trace, table) / over_plain(trace, table, automatic(table))
    assert machine.idle_s < min(plain_s(trace, table) / 0.985, 1.1 * calm)


@every_machine
@pytest.mark.parametrize("right", [0.3, 0.6, 0.8, 0.9])
@pytest.mark.slow
def test_no_fixed_depth_is_much_better(table: CostTable, right: float) -> None:
    """Here every token is as likely as every other, so that the best a policy can do is to find
    the right fixed depth; and bad luck must not park good heads for long."""
    ratios = []
    for seed in range(6):
        trace = made_up(500, right, seed=seed)
        fixed = max(over_plain(trace, table, FixedDepth(depth)) for depth in range(9))
        ratios.append(over_plain(trace, table, automatic(table)) / fixed)
    assert geomean(ratios) > 0.91
    assert min(ratios) > 0.85


@every_machine
@pytest.mark.slow
def test_recorded_answers(table: CostTable) -> None:
    """One conversation after another, with what was learned in the ones before."""
    ours, fixed, bound = [], [], []
    policies = {recorded.temperature: automatic(table) for recorded in RECORDED}
    for recorded in RECORDED:
        trace = recorded.trace
        policies[recorded.temperature].open_answer()
        ours.append(over_plain(trace, table, policies[recorded.temperature]))
        fixed.append(max(over_plain(trace, table, FixedDepth(depth)) for depth in range(5)))
        bound.append(plain_s(trace, table) / bound_s(trace, table))
    assert min(ours) > 0.92
    assert geomean(ours) > 0.99
    assert geomean(ours) > 0.99 * geomean(fixed)
    assert geomean(ours) > 0.7 * geomean(bound)


@every_machine
def test_copying_makes_repetition_fly(table: CostTable) -> None:
    repetitive = [r for r in RECORDED if r.cls == "editing" and r.temperature == 0]
    assert repetitive
    for recorded in repetitive:
        assert over_plain(recorded.trace, table, automatic(table)) > 1.1


def test_copying_needs_no_heads() -> None:
    table = CostTable(TABLES["BF16"].target_s, TABLES["BF16"].growth_s)
    recorded = next(r for r in RECORDED if r.cls == "editing" and r.temperature == 0)
    assert over_plain(recorded.trace, table, automatic(table)) > 1.2


@pytest.mark.slow
def test_heads_that_become_good_are_found_again() -> None:
    table = TABLES["BF16"]
    bad, good = made_up(400, right=0.0), made_up(800, right=1.0)
    found = replay(joined(bad, good), Machine(table), automatic(table)).stats.decode_s
    apart = plain_s(bad, table) + bound_s(good, table)
    assert found < 1.3 * apart


def test_parked_heads_are_asked_ever_more_rarely() -> None:
    machine = Machine(TABLES["Q4_0"])
    replay(made_up(2000, right=0.0), machine, automatic(machine.table))
    n_rounds_apart = [
        (later - earlier) / machine.table.target_s[0]
        for earlier, later in zip(machine.drafted_at, machine.drafted_at[1:], strict=False)
    ]
    assert len(n_rounds_apart) < 40
    assert min(n_rounds_apart[-3:]) > 100


def test_parked_heads_are_asked_at_the_beginning_of_an_answer() -> None:
    table = TABLES["Q4_0"]
    policy = automatic(table)
    replay(made_up(1000, right=0.0), Machine(table), policy)
    parked, wrong, right = Machine(table), Machine(table), Machine(table)
    replay(made_up(20, right=0.0), parked, policy)
    policy.open_answer()
    replay(made_up(20, right=0.0), wrong, policy)
    policy.open_answer()
    replay(made_up(20, right=1.0), right, policy)
    assert parked.drafted_at == []
    assert wrong.drafted_at == [0.0], "heads that are wrong at once are left alone"
    assert len(right.drafted_at) >= 3
    assert right.drafted_at[2] < 4 * table.target_s[0]


@every_machine
@pytest.mark.slow
def test_one_stalled_round_flips_nothing(table: CostTable) -> None:
    trace = made_up(300, right=0.7)
    calm = replay(trace, Machine(table), automatic(table)).stats
    stalled_at = calm.decode_s / 2

    stalls = iter([50.0])

    def load(now: float) -> float:
        return next(stalls, 1.0) if now > stalled_at else 1.0

    stalled = replay(trace, Machine(table, load), automatic(table)).stats
    assert stalled.verified == calm.verified
    assert stalled.rounds == calm.rounds
    assert stalled.decode_s > calm.decode_s + 40 * table.step_s


@every_machine
@pytest.mark.slow
def test_a_switch_is_not_taken_for_a_slower_row(table: CostTable) -> None:
    cost, machine = CostModel(table), Machine(table)
    policy = ExpectedValue(cost)
    for recorded in RECORDED:
        policy.open_answer()
        replay(recorded.trace, machine, policy)
    n_switches = sum(a != b for a, b in itertools.pairwise(machine.verified))
    assert n_switches > 100
    assert cost.verify_s(1, 0) == pytest.approx(table.target_s[0], rel=1e-6)


@every_machine
@pytest.mark.slow
def test_dear_switches_do_not_keep_heads_out(table: CostTable) -> None:
    """They are paid once, and good heads stay in."""
    dear = dataclasses.replace(table, switch_s=0.3 * table.target_s[0])
    trace = made_up(400, right=0.9)
    fixed = max(over_plain(trace, dear, FixedDepth(depth)) for depth in range(9))
    assert over_plain(trace, dear, automatic(dear)) > 0.8 * fixed


@every_machine
@pytest.mark.slow
def test_a_slower_machine_is_no_reason_to_draft_otherwise(table: CostTable) -> None:
    trace = made_up(400, right=0.7)
    calm = replay(trace, Machine(table), automatic(table)).stats
    busy = replay(trace, Machine(table, load=lambda now: 3.0), automatic(table)).stats
    assert busy.decode_s < 1.05 * 3 * calm.decode_s


def test_rows_that_become_dear_are_given_up() -> None:
    """The curve was measured wrong: what was to be had for little costs a whole row each."""
    told = TABLES["wide BF16"]
    true = CostTable(
        tuple(told.target_s[0] * n for n in range(1, N_MAX + 1)),
        told.growth_s,
        told.first_s,
        told.row_s,
        told.step_s,
    )
    trace = made_up(1500, right=0.5)
    policy = ExpectedValue(CostModel(told))
    generation = replay(trace, Machine(true), policy)
    assert plain_s(trace, true) / generation.stats.decode_s > 0.8


def test_a_staircase_is_climbed_to_the_edge_of_a_step() -> None:
    """4 rows cost what 2 cost, and 5 twice that: with good heads 4 rows are verified."""
    table = CostTable((1.0, 1.1, 1.1, 1.1, 4.4, 4.4, 4.4, 4.4, 4.4), (0.0,) * 9, 0.01, 0.0, 0.01)
    stats = replay(made_up(400, right=0.8), Machine(table), automatic(table)).stats
    assert stats.verified[2] > 0.95 * stats.verified[0]
    assert len(stats.verified) == 3


def test_room_is_respected() -> None:
    policy = automatic(TABLES["wide BF16"])
    for room in (0, 1, 3):
        assert policy.begin(room, 10, 0, Match([5] * 8, 30)) <= room
        assert len(policy.choose(Draft())) <= room


@every_machine
@pytest.mark.parametrize("row_counts", [(1,), (1, 2, 3), (1, 2, 3, 6)])
@pytest.mark.slow
def test_only_allowed_row_counts_are_verified(
    table: CostTable, row_counts: tuple[int, ...]
) -> None:
    trace = made_up(300, right=0.9)
    policies: list[DepthPolicy] = [FixedDepth(depth, row_counts) for depth in range(9)]
    for policy in (ExpectedValue(CostModel(table), row_counts), *policies):
        machine = Machine(table)
        replay(trace, machine, policy)
        assert set(machine.verified) <= set(row_counts)


def test_what_is_allowed_is_used() -> None:
    table = TABLES["wide BF16"]
    for policy in (ExpectedValue(CostModel(table), (1, 3)), FixedDepth(8, (1, 3))):
        machine = Machine(table)
        replay(made_up(300, right=1.0), machine, policy)
        assert machine.verified.count(3) > 0.9 * len(machine.verified)


@pytest.mark.parametrize(
    ("prob", "match", "is_sure"),
    [
        (0.99, Match(), True),
        (0.01, Match(), False),
        (0.99, Match([7], 12, [1]), False),
    ],
)
def test_a_draw_is_committed_to_where_its_row_pays_and_no_copy_competes(
    prob: float, match: Match, is_sure: bool
) -> None:
    policy = automatic(TABLES["wide BF16"])
    policy.begin(8, 100, 1, match)
    assert policy.commit(prob) is is_sure


def test_rows_that_later_heads_missed_are_paid_for_and_no_surprise() -> None:
    table = TABLES["wide BF16"]
    cost = CostModel(table)
    policy = ExpectedValue(cost)
    for _ in range(20):
        policy.begin(8, 0, 3, Match())
        policy.choose(Draft([5, 6], [0.9, 0.9], n_behind=60))
        drafted_s = table.first_s + table.step_s + 63 * table.row_s
        policy.observe([5, 6, 7], Seconds(drafted_s, table.target_s[2]))
    assert cost.step_s() == pytest.approx(table.step_s)


def test_what_was_drawn_is_verified_even_where_it_disappoints() -> None:
    """A draw is decided about before it is known; the best guess after it is not."""
    policy = automatic(TABLES["Q4_0"])
    policy.begin(8, 100, 1, Match())
    drawn = Draft([5, 6], [0.01, 0.01], {0: point_mass(5)})
    assert policy.choose(drawn) == [5]
    policy.begin(8, 100, 1, Match())
    assert policy.choose(Draft([5, 6], [0.01, 0.01])) == []


def test_more_heads_than_are_ever_asked() -> None:
    policy = ExpectedValue(CostModel(next(iter(TABLES.values()))), n_drafted=10)
    assert policy.begin(15, 10, 0, Match()) <= MAX_DEPTH


def test_what_is_certain_is_read_at_once_and_asks_no_heads() -> None:
    """However rarely drafts pay, or a plain round is due: its rows have to be read anyway."""
    table = TABLES["wide BF16"]
    policy = automatic(table)
    match = Match([1, 2, 3], 0, [0, 0, 0], n_forced=3, n_certain=3)
    for _ in range(200):
        assert policy.begin(8, 10, 0, match) == 0
        assert policy.choose(Draft()) == [1, 2, 3]
        policy.observe([1, 2, 3, 4], Seconds(0.0, table.target_s[3]))


def test_a_value_that_never_closes_as_in_the_prompt_is_closed_no_more() -> None:
    policy = automatic(TABLES["wide BF16"])
    value = Recalled([1, 2, 3, 4], 1, 6, is_clear=True)
    lengths = []
    for _ in range(60):
        policy.begin(8, 10, 0, Match(value.ids, 1, [0] * 4, value=value))
        verified = policy.choose(Draft())
        lengths.append(len(verified))
        table = TABLES["wide BF16"]
        policy.observe([1, 9][: 1 + len(verified)], Seconds(0.0, table.target_s[len(verified)]))
    assert lengths[0] == 4
    assert lengths[-1] == 1
