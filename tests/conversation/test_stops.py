"""Texts to stop at: nothing of them is shown, however tokens and rounds cut them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.conversation.session import Session, Settings
from mtp_cli.conversation.speech import Ending
from mtp_cli.conversation.stops import StopScanner
from mtp_cli.engine import Sampling
from tests.chat.scripted import END, MERGED, START, Rounds, ScriptedEngine, said

FEW = st.text("ab\né", max_size=12)


def stopping(*stops: str) -> Settings:
    return Settings(Sampling(temperature=0.0), ending=Ending(stops))


def up_to_a_stop(text: str, stops: list[str]) -> str:
    for n in range(len(text) + 1):
        met = [stop for stop in stops if text[:n].endswith(stop)]
        if met:
            return text[: n - max(map(len, met))]
    return text


@given(st.lists(FEW), st.lists(FEW.filter(bool), min_size=1, max_size=3))
def test_what_is_given_back_is_the_text_up_to_the_stop_that_was_whole_first(
    parts: list[str], stops: list[str]
) -> None:
    text, scanner = "".join(parts), StopScanner(stops)
    expected = up_to_a_stop(text, stops)
    given_back = ""
    for part in parts:
        given_back += scanner.feed(part)
        assert expected.startswith(given_back)
        assert scanner.found or not any(stop in given_back + scanner.held for stop in stops)
    if scanner.found is None:
        assert given_back == expected[: len(expected) - scanner.n_held]
        given_back += scanner.rest()
    assert given_back == expected


@given(FEW, st.lists(FEW.filter(bool), min_size=1, max_size=3))
def test_no_more_is_held_back_than_may_become_a_stop(text: str, stops: list[str]) -> None:
    scanner = StopScanner(stops)
    scanner.feed(text)
    if scanner.found is None and scanner.held:
        assert any(stop.startswith(scanner.held) for stop in stops)


def rounds_of(text: str, sizes: Sequence[int]) -> Rounds:
    rest, rounds = list(text.encode()), []
    for size in sizes:
        rounds.append(rest[:size])
        rest = rest[size:]
    return [*filter(None, [*rounds, rest]), [END]]


@given(FEW, FEW.filter(bool), FEW, st.lists(st.integers(1, 4), max_size=8))
def test_an_answer_ends_before_its_stop_inside_a_round_or_across(
    before: str, stop: str, after: str, sizes: list[int]
) -> None:
    text = before + stop + after
    session = Session(ScriptedEngine(rounds_of(text, sizes), said("x")))
    answer = session.ask("Hi", stopping(stop))
    chunks = list(answer)
    assert "".join(chunks) == answer.text == text[: text.index(stop)]
    assert answer.finish_reason == "stop"
    assert session.messages[-1]["content"] == answer.text
    assert bytes(answer.tokens).decode(errors="ignore").endswith(stop)


def test_the_conversation_goes_on_with_the_ids_that_were_shown() -> None:
    engine = ScriptedEngine(said("one###two"), said("fine"))
    session = Session(engine)
    assert "".join(session.ask("Hi", stopping("###"))) == "one"
    "".join(session.ask("Go on", stopping("###")))
    assert engine.prompts[1][: len(engine.prompts[0]) + 4] == [*engine.prompts[0], *b"one", END]
    assert engine.cached[1] == len(engine.prompts[0]) + 3


def test_a_stop_in_the_middle_of_a_token_leaves_its_first_half() -> None:
    engine = ScriptedEngine([[*b"x", MERGED], [END]], said("fine"))
    session = Session(engine)
    assert "".join(session.ask("Hi", stopping("b"))) == "xa"
    "".join(session.ask("Go on", stopping("b")))
    assert engine.prompts[1][len(engine.prompts[0]) :][:3] == [*b"xa", END]


@pytest.mark.parametrize("end", ["length", "interrupted", "stop"])
def test_what_never_became_a_stop_is_shown_in_the_end(end: str) -> None:
    engine = ScriptedEngine(said("one##", end=end == "stop"))
    session = Session(engine)
    answer = session.ask("Hi", stopping("###"))
    heard = ""
    for chunk in answer:
        heard += chunk
        if end == "interrupted" and heard == "one":
            answer.stop()
    assert answer.finish_reason == end
    assert heard == ("one" if end == "interrupted" else "one##")
    assert not answer.speech.is_stopped


def test_a_control_token_that_ends_no_answer_can_be_stopped_at() -> None:
    engine = ScriptedEngine([[*b"one", START, *b"user"], [END]], said("fine"))
    session = Session(engine)
    assert "".join(session.ask("Hi", stopping("<|im_start|>"))) == "one"
    "".join(session.ask("Go on", stopping()))
    assert engine.prompts[1][len(engine.prompts[0]) :][:4] == [*b"one", END]


def test_text_that_spells_a_control_token_is_text_to_stop_at() -> None:
    session = Session(ScriptedEngine(said("one<|im_start|>user")))
    assert "".join(session.ask("Hi", stopping("<|im_start|>"))) == "one"


@pytest.mark.parametrize("sizes", [[1] * 13, [13], [4, 3, 6]])
def test_the_stop_that_is_whole_first_counts_whatever_a_round_brings(sizes: list[int]) -> None:
    session = Session(ScriptedEngine(rounds_of("one two three", sizes)))
    assert "".join(session.ask("Hi", stopping("three", "two th", "o t", "e t"))) == "on"


THOUGHTS = "<think>\nIt ends with ###.\n\n\nSo: ###\n</think>\n\n"


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("stop", ["###", "\n\n"])
def test_a_stop_does_not_count_in_reasoning(stop: str, size: int) -> None:
    """A model that thinks about a stop, or in paragraphs, still answers."""
    rounds = rounds_of(f"{THOUGHTS}One.{stop}Two.", [size] * 100)
    session = Session(ScriptedEngine(rounds))
    answer = session.ask("Hi", stopping(stop))
    assert "".join(answer) == "One."
    assert answer.reasoning == "It ends with ###.\n\n\nSo: ###"
    assert answer.finish_reason == "stop"
    assert answer.speech.is_stopped


def test_it_counts_where_an_answer_goes_on_behind_its_reasoning() -> None:
    engine = ScriptedEngine(said(f"{THOUGHTS}One", end=False), said(" more.###Two."))
    session = Session(engine)
    "".join(session.ask("Hi", stopping("###")))
    assert "".join(session.more(stopping("###"))) == " more."
