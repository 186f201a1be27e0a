"""When a drafter that has to read a prompt first is asked: cheap, likely, and long enough."""

from __future__ import annotations

import dataclasses

import pytest

from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.policy import Seconds
from mtp_cli.engine.depth.reading import Reading
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.tuning import TUNING
from tests.engine.depth import simulation
from tests.engine.depth.machines import made_up

# A whole model of half the target's cost drafts: its steps are dear, and a row of a prompt takes a
# fourteenth of a plain round.
_ROWS = tuple(0.0175 * (0.96 + 0.08 * n) for n in range(1, 17))
TABLE = CostTable(_ROWS, (0.0,) * 16, first_s=0.0085, row_s=0.00125, step_s=0.0083)
N_UNREAD = 46
ROOM = 1000


def reading(table: CostTable = TABLE) -> Reading:
    return Reading(CostModel(table), 8, TUNING.policy)


def say(known: Reading, n_tokens: int, sure: float, draft: Draft | None = None) -> None:
    """Rounds of a token, before each of which it is asked; the token is 5."""
    for _ in range(n_tokens):
        known.pays(ROOM, 100, N_UNREAD)
        known.observe([5], Seconds(0.0, 0.0175, lambda: sure), draft or Draft())


def test_what_takes_no_longer_than_a_plain_round_is_read_at_once() -> None:
    assert reading().pays(ROOM, 0, 14)
    assert not reading().pays(ROOM, 0, 15)


def test_it_is_read_once_that_would_have_been_worth_it() -> None:
    known = reading()
    say(known, 8, sure=0.95)
    assert not known.pays(ROOM, 100, N_UNREAD)
    say(known, 30, sure=0.95)
    assert known.pays(ROOM, 100, N_UNREAD)
    assert not known.pays(4, 100, N_UNREAD)  # the answer is nearly full
    known.open_answer()
    assert not known.pays(ROOM, 100, N_UNREAD)


def test_where_the_target_is_unsure_it_never_is() -> None:
    known = reading()
    say(known, 1000, sure=0.5)
    assert not known.pays(ROOM, 100, N_UNREAD)


def test_a_drafter_that_was_wrong_where_the_target_was_sure_is_not_trusted() -> None:
    known = reading()
    say(known, 100, sure=0.95, draft=Draft([6], [0.9]))
    assert not known.pays(ROOM, 100, N_UNREAD)
    trusted = reading()
    say(trusted, 100, sure=0.95, draft=Draft([5], [0.9]))
    assert trusted.pays(ROOM, 100, N_UNREAD)


def test_how_sure_the_target_is_is_asked_only_where_reading_is_dear() -> None:
    def never() -> float:
        raise AssertionError

    known = reading()
    assert known.pays(ROOM, 0, 3)
    known.observe([5], Seconds(0.0, 0.01, never), Draft())


@pytest.mark.parametrize("n_tokens", [12, 24, 64, 96, 400])
@pytest.mark.parametrize("right", [0.3, 0.6, 0.9])
def test_no_answer_is_much_slower_for_a_prompt_to_read(n_tokens: int, right: float) -> None:
    """The simulated target is sure of every token, however bad the drafts are: the worst case, in
    which the prompt is read for nothing, once."""
    trace = made_up(n_tokens, right)
    cost = CostModel(TABLE)
    policy = ExpectedValue(cost)
    policy.open_answer()
    machine = simulation.Machine(TABLE)
    answer = simulation.replay(trace, machine, policy, cost, N_UNREAD)
    speed = simulation.plain_s(trace, TABLE) / answer.stats.decode_s
    if n_tokens <= 12:
        assert not machine.drafted_at
    if n_tokens == 400:
        assert speed > {0.3: 0.97, 0.6: 0.97, 0.9: 1.1}[right]
    assert speed > 0.85


def test_heads_that_read_fast_are_asked_as_before() -> None:
    table = dataclasses.replace(TABLE, row_s=0.00002)
    trace = made_up(64, right=0.9)
    machine = simulation.Machine(table)
    policy = ExpectedValue(CostModel(table))
    policy.open_answer()
    simulation.replay(trace, machine, policy, n_unread=N_UNREAD)
    assert machine.drafted_at[0] == 0.0
