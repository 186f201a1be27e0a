"""A conversation that fills its context goes on without its oldest exchanges."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.conversation.session import Session, Settings
from mtp_cli.engine import Engine, Sampling
from mtp_cli.errors import MtpError
from tests.chat.scripted import ScriptedEngine, said
from tests.conversation.test_prompt_ids import MARKED
from tests.engine import vocabularies

GREEDY = Sampling(temperature=0.0)
SETTINGS = Settings(GREEDY)


def text_of(engine: ScriptedEngine, ids: list[int]) -> str:
    return b"".join(engine.piece(token) for token in ids).decode()


def test_the_oldest_exchanges_go_and_the_system_prompt_stays() -> None:
    engine = ScriptedEngine(*[said(f"answer {n}") for n in range(30)], n_ctx=300)
    session = Session(engine, system="Be brief.")
    left_out = []
    for n in range(30):
        answer = session.ask(f"question {n}", SETTINGS)
        assert "".join(answer) == f"answer {n}"
        left_out.append(answer.n_left_out)
        prompt = text_of(engine, engine.prompts[-1])
        assert prompt.count("Be brief.") == 1
        assert f"question {n}" in prompt
        assert len(engine.prompts[-1]) <= 300 * 3 / 4
    assert len(session.messages) == 60  # nothing is lost for /save
    assert "question 1\n" not in text_of(engine, engine.prompts[-1])
    # Not one by one: most questions are read behind what is in the cache.
    assert 0 < sum(map(bool, left_out)) <= 10
    assert 20 <= sum(left_out) < 30


def test_between_two_gaps_the_cache_is_kept() -> None:
    engine = ScriptedEngine(*[said(f"answer {n}") for n in range(30)], n_ctx=300)
    session = Session(engine)
    for n in range(30):
        answer = session.ask(f"question {n}", SETTINGS)
        list(answer)
        if n and not answer.n_left_out:
            assert engine.cached[n] > len(engine.prompts[n - 1])


def test_a_question_too_long_says_what_to_do_and_changes_nothing() -> None:
    engine = ScriptedEngine(*[said("fine")] * 4, n_ctx=200)
    session = Session(engine)
    list(session.ask("Hi", SETTINGS))
    with pytest.raises(MtpError, match=r"no room .*: shorten it, or start again with a larger"):
        session.ask("x" * 300, SETTINGS)
    answer = session.ask("Hi again", SETTINGS)
    assert "".join(answer) == "fine"
    assert answer.n_left_out == 0
    assert text_of(engine, engine.prompts[-1]).count("Hi") == 2


def test_what_was_left_out_comes_back_when_there_is_room_again() -> None:
    engine = ScriptedEngine(*[said("x" * 40) for n in range(9)], n_ctx=300)
    session = Session(engine)
    for asked in ("first", "second", "third", "fourth", "fifth"):
        list(session.ask(asked, SETTINGS))
    assert "first" not in text_of(engine, engine.prompts[-1])
    while len(session.messages) > 2:
        session.undo()
    list(session.ask("again", SETTINGS))
    assert "first" in text_of(engine, engine.prompts[-1])


def test_other_messages_begin_anew() -> None:
    engine = ScriptedEngine(*[said("x" * 40) for n in range(9)], n_ctx=300)
    session = Session(engine)
    for n in range(6):
        list(session.ask(f"question {n}", SETTINGS))
    session.messages = [
        {"role": "user", "content": "loaded"},
        {"role": "assistant", "content": "yes"},
    ]
    list(session.ask("and", SETTINGS))
    assert "loaded" in text_of(engine, engine.prompts[-1])


def test_an_answer_that_fills_the_context_goes_on_without_the_oldest() -> None:
    engine = ScriptedEngine(said("a" * 60), said("z" * 400), said("!"), n_ctx=300)
    session = Session(engine)
    list(session.ask("first", SETTINGS))
    cut = session.ask("second", SETTINGS)
    list(cut)
    assert cut.finish_reason == "length"
    more = session.more(SETTINGS)
    assert "".join(more) == "!"
    assert more.n_left_out == 1
    assert "first" not in text_of(engine, engine.prompts[-1])
    assert text_of(engine, engine.prompts[-1]).endswith(cut.text)


def test_an_answer_alone_that_fills_the_context_says_so() -> None:
    session = Session(ScriptedEngine(said("z" * 400), n_ctx=300))
    list(session.ask("first", SETTINGS))
    with pytest.raises(MtpError, match="this answer fills the context of 300 tokens: --ctx"):
        session.more(SETTINGS)


def test_what_is_answered_behind_a_gap_is_plain_decodings_answer(tmp_path: Path) -> None:
    path = vocabularies.write(tmp_path / "m.gguf", vocabularies.bpe(), MARKED)
    settings = Settings(GREEDY, max_tokens=24, depth=2)
    with Engine.open(path, n_ctx=256, n_threads=1) as engine:
        session, gaps = Session(engine), 0
        for n in range(12):
            answer = session.ask(f"the {n} end", settings)
            list(answer)
            gaps += answer.n_left_out
            with engine.twin() as other:
                prompt = engine.cached[: answer.stats.prompt_tokens]
                plain = other.generate(prompt, GREEDY, max_tokens=24, depth=0)
                assert [token for ids in plain for token in ids] == answer.tokens
        assert gaps


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), max_size=25), st.booleans())
def test_every_question_that_fits_alone_is_answered(
    sizes: list[tuple[int, int]], is_raw: bool
) -> None:
    engine = ScriptedEngine(*(said("a" * n) for _, n in sizes), n_ctx=150)
    session = Session(engine, raw=is_raw)
    for n_asked, n_said in sizes:
        answer = session.ask("q" * n_asked, SETTINGS)
        list(answer)
        assert answer.text == "a" * min(n_said, len(answer.text))
        assert len(engine.prompts[-1]) < 150
        assert "q" * n_asked in text_of(engine, engine.prompts[-1])
