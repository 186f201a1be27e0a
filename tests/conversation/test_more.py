"""Going on with an answer that something else than the model ended."""

from __future__ import annotations

import pytest

from mtp_cli.conversation.repetition import Loop
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.conversation.speech import Ending
from mtp_cli.engine import Sampling
from mtp_cli.errors import MtpError
from tests.chat.scripted import END, ScriptedEngine, said

GREEDY = Sampling(temperature=0.0)
SHORT = Settings(GREEDY, max_tokens=3)
LONG = Settings(GREEDY)


def test_an_answer_that_was_cut_goes_on_where_it_was_cut() -> None:
    engine = ScriptedEngine(said("abcdef"), said("def"), said("fine"))
    session = Session(engine)
    assert "".join(session.ask("Hi", SHORT)) == "abc"
    assert "".join(session.more(LONG)) == "def"
    assert engine.prompts[1] == [*engine.prompts[0], *b"abc"]
    assert [m["content"] for m in session.messages] == ["Hi", "abcdef"]
    "".join(session.ask("Go on", LONG))
    assert engine.prompts[2][: len(engine.prompts[1]) + 4] == [*engine.prompts[1], *b"def", END]


def test_it_goes_on_again_and_again() -> None:
    engine = ScriptedEngine(said("abc"), said("def"), said("gh"))
    session = Session(engine)
    list(session.ask("Hi", SHORT))
    list(session.more(SHORT))
    list(session.more(LONG))
    assert session.messages[-1]["content"] == "abcdefgh"


def test_what_the_model_itself_ended_has_no_more() -> None:
    session = Session(ScriptedEngine(said("abc")))
    with pytest.raises(MtpError, match="no answer to go on with"):
        session.more(LONG)
    list(session.ask("Hi", LONG))
    with pytest.raises(MtpError, match="came to its own end"):
        session.more(LONG)


def test_behind_a_stop_it_shows_the_stop_first() -> None:
    engine = ScriptedEngine(said("one\n\ntwo"), said("two"))
    session = Session(engine)
    settings = Settings(GREEDY, ending=Ending(("\n\n",)))
    assert "".join(session.ask("Hi", settings)) == "one"
    assert "".join(session.more(settings)) == "\n\ntwo"
    assert engine.prompts[1] == [*engine.prompts[0], *b"one\n\n"]
    assert session.messages[-1]["content"] == "one\n\ntwo"


def test_a_character_that_was_cut_is_made_whole() -> None:
    engine = ScriptedEngine(said("né"), said("é")[1:], said("fine"))
    session = Session(engine)
    assert "".join(session.ask("Hi", Settings(GREEDY, max_tokens=2))) == "n"
    assert "".join(session.more(LONG)) == "é"
    assert engine.prompts[1] == [*engine.prompts[0], *"né".encode()[:2]]
    "".join(session.ask("Go on", LONG))
    assert bytes(engine.prompts[2][len(engine.prompts[0]) :][:3]).decode() == "né"


def test_half_a_character_does_not_stay_in_the_conversation() -> None:
    engine = ScriptedEngine(said("né"), said("fine"))
    session = Session(engine)
    list(session.ask("Hi", Settings(GREEDY, max_tokens=2)))
    list(session.ask("Go on", LONG))
    assert engine.prompts[1][len(engine.prompts[0]) :][:2] == [ord("n"), END]


def test_an_answer_that_got_stuck_goes_on() -> None:
    engine = ScriptedEngine(said("no, " * 9), said("!"))
    session = Session(engine)
    settings = Settings(GREEDY, ending=Ending(loop=Loop(4, 3, 8)))
    stuck = session.ask("Hi", settings)
    list(stuck)
    assert stuck.finish_reason == "repetition"
    assert "".join(session.more(settings)) == "!"
    assert session.messages[-1]["content"] == stuck.text + "!"


def test_with_another_system_prompt_it_goes_on_from_the_text() -> None:
    engine = ScriptedEngine(said("abcdef"), said("def"))
    session = Session(engine)
    list(session.ask("Hi", SHORT))
    session.system = "Be brief."
    assert "".join(session.more(LONG)) == "def"
    assert b"".join(map(engine.piece, engine.prompts[1])).decode().endswith("assistant\nabc")


def test_a_loaded_answer_goes_on_from_its_text() -> None:
    engine = ScriptedEngine(said("def"))
    session = Session(engine)
    session.messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "xyz <|im_end|>"},
    ]
    assert "".join(session.more(LONG)) == "def"
    assert bytes(engine.prompts[0][-14:]).decode() == "xyz <|im_end|>"
    assert session.messages[-1]["content"] == "xyz <|im_end|>def"


def test_stopped_before_a_word_more_nothing_changes() -> None:
    session = Session(ScriptedEngine(said("abcdef"), said("def")))
    list(session.ask("Hi", SHORT))
    answer = session.more(LONG)
    answer.stop()
    assert list(answer) == []
    assert session.messages[-1]["content"] == "abc"
