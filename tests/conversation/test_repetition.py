"""Loops are seen; what people and programs repeat on purpose is none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.conversation.repetition import STUCK, Loop
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.conversation.speech import Ending
from mtp_cli.engine import Sampling
from tests.chat.scripted import ScriptedEngine, said

TABLE = "".join(f"| {n} | {n * n} | yes | no | open |\n" for n in range(200))
SEPARATOR = "|" + "---|" * 60 + "\n"
ZEROS = "int table[] = {" + "0, " * 100 + "0};\n"
CHECKS = "".join(f"    assert parse(text)[{n}] == expected[{n}]\n" for n in range(200))
COPIES = "- milk\n" * 40
REFRAIN = "Row, row, row your boat,\nGently down the stream.\n\n" * 3
RULE = "=" * 300 + "\n"


def ids(text: str) -> list[int]:
    return list(text.encode())


@given(
    st.lists(st.integers(0, 5), max_size=40),
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.integers(2, 12),
)
def test_a_period_is_what_the_end_repeats(before: list[int], stretch: list[int], n: int) -> None:
    loop = Loop(max_period=20, min_times=3, min_tokens=12)
    text = before + stretch * n
    found = loop.period(text)
    n_times = max(3, -(-12 // len(stretch)))
    assert found > 0 or n < n_times
    if found:
        size = found * max(3, -(-12 // found))
        assert text[-size:] == text[-found:] * (size // found)


@pytest.mark.parametrize("text", [TABLE, SEPARATOR, ZEROS, CHECKS, COPIES, REFRAIN, RULE])
def test_what_is_repeated_on_purpose_is_no_loop(text: str) -> None:
    whole = ids(text)
    assert not any(STUCK.period(whole[:n]) for n in range(1, len(whole) + 1, 7))


@pytest.mark.parametrize("stretch", ["a", "ha ", "la femme au roi, ", "The cat sat. " * 3])
def test_a_loop_is_seen_before_it_has_a_thousand_tokens(stretch: str) -> None:
    endless = list(itertools.islice(itertools.cycle(ids(stretch)), 1000))
    period = STUCK.period(ids("Well: ") + endless)
    assert endless[-period:] == endless[-2 * period : -period]
    assert 0 < period <= len(stretch)


def test_an_answer_that_is_stuck_ends_and_says_so() -> None:
    engine = ScriptedEngine(said("Well, " + "no, " * 1000), said("yes"), n_ctx=10_000)
    session = Session(engine)
    answer = session.ask("Hi", Settings(Sampling(), ending=Ending(loop=STUCK)))
    text = "".join(answer)
    assert (answer.finish_reason, answer.speech.period) == ("repetition", 4)
    assert 400 <= len(text) < 430
    assert session.messages[-1]["content"] == text
    assert not answer.is_whole


def test_without_the_guard_it_goes_on() -> None:
    engine = ScriptedEngine(said("no, " * 500), n_ctx=10_000)
    answer = Session(engine).ask("Hi", Settings(Sampling()))
    assert "".join(answer) == "no, " * 500
    assert answer.finish_reason == "stop"
