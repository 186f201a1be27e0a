"""Reasoning in a conversation: apart from the answer, sent back as the template takes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.conversation.answer import Answer
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.conversation.saved import Conversation, load, save
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.conversation.template import Message
from mtp_cli.engine import Sampling
from mtp_cli.errors import MtpError
from tests.chat.scripted import END, Rounds, ScriptedEngine, said

SETTINGS = Settings(Sampling(temperature=0.0))
THINK, UNTHINK = 259, 260  # control tokens, beside the scripted engine's own
SPELLED = {THINK: "[THINK]", UNTHINK: "[/THINK]"}

FORGETS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
KEEPS = FORGETS.replace(" and loop.last", "")
OPENS = KEEPS.replace(
    "<|im_start|>assistant\n{% if enable", "<|im_start|>assistant\n<think>\n{% if enable"
)
SPLITS = (
    "{% for m in messages %}{% set c = m.content %}"
    "{% if m.role == 'assistant' and '</think>' in c %}"
    "{% set c = c.split('</think>')[-1] %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if m.thinking and loop.last %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% else %}"
    "<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
SAYS_NOTHING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


class ThinkingEngine(ScriptedEngine):
    """With `[THINK]` and `[/THINK]` as control tokens."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        for token, spelling in SPELLED.items():
            before, found, after = text.partition(spelling)
            if found and parse_special:
                ids = super().tokenize(before, add_special=add_special, parse_special=True)
                return [*ids, token, *self.tokenize(after, add_special=False, parse_special=True)]
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token in SPELLED:
            return SPELLED[token].encode() if special else b""
        return super().piece(token, special=special)


def hear(answer: Answer) -> tuple[str, str]:
    parts = list(answer.parts())
    heard = tuple(
        "".join(part.text for part in parts if part.kind == kind)
        for kind in ("reasoning", "content")
    )
    assert heard == (answer.reasoning, answer.text)
    return heard


def spelled(engine: ScriptedEngine, ids: Sequence[int]) -> str:
    return b"".join(engine.piece(token, special=True) for token in ids).decode()


@pytest.mark.parametrize(
    ("template", "rounds"),
    [
        (FORGETS, said("<think>\nHm.\n</think>\n\nYes.")),
        (OPENS, said("Hm.\n</think>\n\nYes.")),
        (SAYS_NOTHING, said("<think>Hm.</think>Yes.")),
        (SAYS_NOTHING, [(THINK, *b"Hm."), (UNTHINK,), *said("Yes.")]),
        (SAYS_NOTHING, [(THINK, *b"Hm.", UNTHINK, *b"Yes.", END)]),
    ],
)
def test_a_message_has_reasoning_and_content_apart(template: str, rounds: Rounds) -> None:
    session = Session(ThinkingEngine(rounds, template=template))
    assert hear(session.ask("So?", SETTINGS)) == ("Hm.", "Yes.")
    assert session.messages == [
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "Yes.", "reasoning": "Hm."},
    ]


def test_who_iterates_over_an_answer_gets_its_content() -> None:
    session = Session(ScriptedEngine(said("<think>Hm.</think>Yes."), template=FORGETS))
    assert "".join(session.ask("So?", SETTINGS)) == "Yes."


@pytest.mark.parametrize(
    ("template", "before_the_answer"),
    [(FORGETS, ""), (KEEPS, "<think>\nHm.\n</think>\n\n"), (SAYS_NOTHING, "")],
)
def test_reasoning_goes_back_as_the_template_wants_it(
    template: str, before_the_answer: str
) -> None:
    engine = ScriptedEngine(
        said("<think>\nHm.\n</think>\n\nYes."), said("Fine."), template=template
    )
    session = Session(engine)
    hear(session.ask("So?", SETTINGS))
    hear(session.ask("Sure?", SETTINGS))
    assert spelled(engine, engine.prompts[1]) == (
        "<s><|im_start|>user\nSo?<|im_end|>\n"
        f"<|im_start|>assistant\n{before_the_answer}Yes.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_answer_with_reasoning_keeps_its_ids_where_the_template_keeps_it() -> None:
    apart = [*((byte,) for byte in b"<think>\nab\n</think>\n\nab"), (END,)]  # not merged
    for template, rounds in ((KEEPS, apart), (OPENS, apart[len("<think>\n") :])):
        engine = ScriptedEngine(rounds, said("x"), template=template)
        session = Session(engine)
        assert hear(session.ask("one", SETTINGS)) == ("ab", "ab")
        hear(session.ask("two", SETTINGS))
        answered = [*engine.prompts[0], *(token for ids in rounds for token in ids)]
        assert engine.prompts[1][: len(answered)] == answered
        assert engine.cached[1] == len(answered)


def test_control_tokens_spelled_in_reasoning_stay_text() -> None:
    engine = ScriptedEngine(
        said("<think>\nIt is <|im_end|>.\n</think>\n\nYes."), said("x"), template=KEEPS
    )
    session = Session(engine)
    hear(session.ask("So?", SETTINGS))
    hear(session.ask("Sure?", SETTINGS))
    assert engine.prompts[1].count(END) == 3
    assert (
        engine.cached[1]
        == len(engine.prompts[0]) + len("<think>\nIt is <|im_end|>.\n</think>\n\nYes.") + 1
    )


def test_regenerate_and_undo_treat_an_exchange_as_one() -> None:
    engine = ScriptedEngine(
        said("<think>1</think>one"), said("<think>2</think>two"), said("three"), template=KEEPS
    )
    session = Session(engine)
    hear(session.ask("So?", SETTINGS))
    assert hear(session.regenerate(SETTINGS)) == ("2", "two")
    assert engine.prompts[1] == engine.prompts[0]
    assert session.undo() == "So?"
    assert session.messages == []
    hear(session.ask("So?", SETTINGS))
    assert session.messages[-1] == {"role": "assistant", "content": "three"}


def test_an_answer_stopped_inside_its_reasoning_is_kept_as_far_as_it_came() -> None:
    engine = ScriptedEngine(said("<think>Hm, well</think>Yes."), template=KEEPS)
    session = Session(engine)
    answer = session.ask("So?", SETTINGS)
    for part in answer.parts():
        if part.text == ",":
            answer.stop()
    assert session.messages[-1] == {"role": "assistant", "content": "", "reasoning": "Hm,"}


def test_thinking_is_switched_and_what_cannot_be_is_noted() -> None:
    engine = ScriptedEngine(said("Yes."), said("Yes."), template=FORGETS)
    session = Session(engine)
    session.think("off")
    hear(session.ask("So?", SETTINGS))
    assert spelled(engine, engine.prompts[0]).endswith("assistant\n<think>\n\n</think>\n\n")
    assert session.new_notes() == []
    session.think("on")
    hear(session.ask("So?", SETTINGS))
    assert spelled(engine, engine.prompts[1]).endswith("assistant\n")
    assert session.thinking == "on"
    plain = Session(ScriptedEngine(template=SAYS_NOTHING))
    plain.think("off")
    assert plain.new_notes() == ["the chat template has no such switch for thinking"]
    assert plain.new_notes() == []
    with pytest.raises(MtpError, match="--chat-template gives one"):
        Session(ScriptedEngine(template=None)).think("off")


def test_variables_reach_the_template_and_unread_ones_are_noted() -> None:
    engine = ScriptedEngine(said("Yes."), template="{{ name }}{{ n + 1 }}" + SAYS_NOTHING)
    session = Session(engine, variables={"name": "ada", "n": 1, "other": 2})
    hear(session.ask("So?", SETTINGS))
    assert spelled(engine, engine.prompts[0]).startswith("<s>ada2<|im_start|>")
    assert session.new_notes() == ["the chat template reads no variable other"]
    with pytest.raises(MtpError, match="itself gives the chat template messages"):
        Session(ScriptedEngine(), variables={"messages": []})


def test_another_template_takes_the_place_of_the_model_s() -> None:
    for own in (None, "{{ raise_exception('wrong') }}", ""):
        engine = ScriptedEngine(said("Yes."), template=own)
        session = Session(engine, template=SAYS_NOTHING, system="Be terse.")
        assert hear(session.ask("So?", SETTINGS)) == ("", "Yes.")
        assert not session.raw


def test_an_empty_template_is_none() -> None:
    engine = ScriptedEngine(said("Yes."), template="")
    session = Session(engine)
    assert session.raw
    assert hear(session.ask("So?", SETTINGS)) == ("", "Yes.")


def test_a_loaded_answer_goes_on_inside_its_reasoning() -> None:
    engine = ScriptedEngine(said("lo</think>Yes."), template=OPENS)
    session = Session(engine)
    session.messages = [
        Message(role="user", content="So?"),
        Message(role="assistant", content="", reasoning="Hel"),
    ]
    assert hear(session.more(SETTINGS)) == ("lo", "Yes.")
    assert spelled(engine, engine.prompts[0]).endswith("assistant\n<think>\nHel")
    assert session.messages[-1] == {"role": "assistant", "content": "Yes.", "reasoning": "Hello"}


@pytest.mark.parametrize(
    ("template", "before", "between"),
    [
        (KEEPS, "<think>\n", "\n</think>\n\n"),
        (OPENS, "", "\n</think>\n\n"),
        (
            CHANNELS,
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
    ],
)
def test_what_quotes_its_own_marks_stays_as_it_is_when_it_is_loaded_and_goes_on(
    template: str, before: str, between: str, tmp_path: Path
) -> None:
    quotes = "A </think> or <|end|> ends <think>."
    engine = ScriptedEngine(said(" More."), said("Fine."), template=template)
    session = Session(engine)
    talk = [
        Message(role="user", content="So?"),
        Message(role="assistant", content=quotes, reasoning=quotes),
    ]
    save(tmp_path / "c.json", Conversation(None, talk, "m", {}))
    session.messages = [*load(tmp_path / "c.json").messages]
    assert session.messages == talk
    assert hear(session.more(SETTINGS)) == ("", " More.")
    asked = spelled(engine, engine.prompts[0])
    assert asked.partition("assistant")[2].lstrip("\n").removeprefix("<think>\n") == (
        f"{before}{quotes}{between}{quotes}".removeprefix("<think>\n")
    )
    assert session.messages[-1] == {
        "role": "assistant",
        "content": f"{quotes} More.",
        "reasoning": quotes,
    }
    hear(session.ask("Sure?", SETTINGS))
    assert f"{quotes} More." in spelled(engine, engine.prompts[1])
    assert session.new_notes() == []


def test_content_alone_goes_on_as_content_where_the_prompt_opens_reasoning() -> None:
    engine = ScriptedEngine(said(" it is."), template=OPENS)
    session = Session(engine)
    session.messages = [
        Message(role="user", content="So?"),
        Message(role="assistant", content="Yes,"),
    ]
    assert hear(session.more(SETTINGS)) == ("", " it is.")
    assert spelled(engine, engine.prompts[0]).endswith("<think>\n\n</think>\n\nYes,")


def test_an_answer_about_marks_reaches_a_template_that_splits_content_by_them() -> None:
    quotes = "Take what is behind </think>, not <think>."
    engine = ScriptedEngine(said(quotes), said("Yes."), template=SPLITS)
    session = Session(engine)
    assert hear(session.ask("How?", SETTINGS)) == ("", quotes)
    hear(session.ask("Sure?", SETTINGS))
    assert f"assistant\n{quotes}<|im_end|>" in spelled(engine, engine.prompts[1])
    assert session.new_notes() == []
    assert engine.cached[1] == len(engine.prompts[0]) + len(quotes) + 1


@given(st.integers(1, 40))
def test_an_answer_cut_anywhere_goes_on_as_if_it_had_not_been(n: int) -> None:
    text = "<think>\nHm ab.\n</think>\n\nYes, it is."
    rounds = said(text)
    engine = ScriptedEngine(rounds[:n], rounds[n:] or [(END,)], template=KEEPS)
    session = Session(engine)
    hear(session.ask("So?", SETTINGS))
    if n >= len(rounds):
        return
    hear(session.more(SETTINGS))
    assert session.messages[-1] == {
        "role": "assistant",
        "content": "Yes, it is.",
        "reasoning": "Hm ab.",
    }


def test_a_turn_of_the_benchmarks_is_put_as_the_chat_puts_it() -> None:
    """In parts where the template wants those."""
    parts = "{% for m in messages %}<|im_start|>{{ m.content[0].text }}<|im_end|>{% endfor %}"
    engine = ScriptedEngine(said("x"), template=parts)
    session = Session(engine, system="Be brief.")
    hear(session.ask("So?", SETTINGS))
    assert prompt_ids(engine, "So?", system="Be brief.") == engine.prompts[0]
    assert spelled(engine, engine.prompts[0]) == (
        "<s><|im_start|>Be brief.<|im_end|><|im_start|>So?<|im_end|>"
    )
