"""A conversation goes on in another session with the very ids that the first would have used."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.conversation.exact import Exact, Known, Newest
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.conversation.speech import Ending
from mtp_cli.engine import Sampling
from tests.chat.scripted import END, MERGED, ScriptedEngine, said

GREEDY = Sampling(temperature=0.0)
LONG = Settings(GREEDY)
SHORT = Settings(GREEDY, max_tokens=3)
SPLIT = [(ord("a"),), (ord("b"),), (END,)]  # "ab" in other ids than the tokenizer's own


def gone_on(session: Session, engine: ScriptedEngine) -> Session:
    """Another session with what the first one gives away, as bytes."""
    other = Session(engine)
    data = session.exact().to_bytes()
    other.resume([dict(m) for m in session.messages], Exact.from_bytes(data))  # type: ignore[misc]
    return other


def test_answers_keep_their_ids() -> None:
    engine = ScriptedEngine(SPLIT, said("fine"), said("fine"))
    session = Session(engine)
    list(session.ask("Hi", LONG))
    other = gone_on(session, engine)
    list(session.ask("And?", LONG))
    list(other.ask("And?", LONG))
    assert engine.prompts[2] == engine.prompts[1]
    assert [ord("a"), ord("b")] == engine.prompts[2][len(engine.prompts[0]) :][:2]
    assert other.messages == session.messages


def test_texts_alone_lose_them() -> None:
    engine = ScriptedEngine(SPLIT, said("fine"))
    session = Session(engine)
    list(session.ask("Hi", LONG))
    other = Session(engine)
    other.messages = list(session.messages)
    list(other.ask("And?", LONG))
    assert MERGED in engine.prompts[1]


@pytest.mark.parametrize(
    ("settings", "first", "second"),
    [
        (SHORT, "abcdef", "def"),
        (Settings(GREEDY, max_tokens=2), "né", "é"),
        (Settings(GREEDY, ending=Ending(("\n\n",))), "one\n\ntwo", "two"),
    ],
)
def test_a_cut_answer_goes_on_where_it_was_cut(settings: Settings, first: str, second: str) -> None:
    rest = second.encode()[1:] if second == "é" else second.encode()
    rounds = [(byte,) for byte in rest]
    engine = ScriptedEngine(said(first), rounds, rounds)
    session = Session(engine)
    list(session.ask("Hi", settings))
    other = gone_on(session, engine)
    texts = ["".join(s.more(LONG)) for s in (session, other)]
    assert texts[0] == texts[1]
    assert engine.prompts[2] == engine.prompts[1]
    assert other.messages == session.messages


def test_what_the_model_ended_has_no_more_there_either() -> None:
    engine = ScriptedEngine(said("abc"))
    session = Session(engine)
    list(session.ask("Hi", LONG))
    with pytest.raises(Exception, match="came to its own end"):
        gone_on(session, engine).more(LONG)


def test_what_was_left_out_stays_left_out() -> None:
    engine = ScriptedEngine(*[said("x" * 60)] * 6, n_ctx=400)
    session = Session(engine)
    for question in ("one", "two", "three", "four"):
        list(session.ask(question * 10, Settings(GREEDY, max_tokens=80)))
    other = gone_on(session, engine)
    list(session.ask("five", Settings(GREEDY, max_tokens=80)))
    list(other.ask("five", Settings(GREEDY, max_tokens=80)))
    assert engine.prompts[-1] == engine.prompts[-2]
    assert len(engine.prompts[-1]) < sum(len(m["content"]) for m in session.messages)


@given(st.binary())
def test_other_bytes_are_refused(data: bytes) -> None:
    for found in (data, zlib.compress(data)):
        with pytest.raises(ValueError, match="what lets a conversation go on"):
            Exact.from_bytes(found)


@given(st.text(st.characters()), st.lists(st.integers(0, 2**31 - 1)))
def test_all_texts_and_ids_are_kept(text: str, ids: list[int]) -> None:
    newest = Newest(text, ids, text, text, b"\xc3".hex(), is_whole=False)
    exact = Exact(Known(text, ids, [(0, 0), (len(text), len(ids))]), newest, 2)
    assert Exact.from_bytes(exact.to_bytes()) == exact
