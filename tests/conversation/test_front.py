"""What stands in front of a conversation, and that it can be removed."""

from __future__ import annotations

import pytest

from mtp_cli.conversation.session import Session, Settings
from mtp_cli.engine import Sampling
from tests.chat.scripted import CHATML, ScriptedEngine, said

OWN = "You are Bob."
DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Bob.<|im_end|>\n"
    "{% endif %}" + CHATML
)
EMPTY_IS_NONE = (
    "{% if messages[0]['role'] == 'system' and messages[0]['content'] %}{% else %}"
    "<|im_start|>system\nYou are Bob.<|im_end|>\n{% endif %}" + CHATML
)
ALWAYS = (
    "{{ bos_token }}<|im_start|>system\nToday is Monday.\n\n"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
    "{% set messages = messages[1:] %}{% endif %}<|im_end|>\n" + CHATML
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
)
NO_SYSTEM_BUT_OWN = OWN + "\n" + NO_SYSTEM


@pytest.mark.parametrize("template", [CHATML, NO_SYSTEM])
def test_where_the_template_adds_nothing_there_is_none(template: str) -> None:
    session = Session(ScriptedEngine(template=template))
    assert session.own_words() == ""
    assert session.drop_system() == ""
    assert session.system is None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (DEFAULT, OWN),
        (EMPTY_IS_NONE, OWN),
        (ALWAYS, "Today is Monday."),
        (NO_SYSTEM_BUT_OWN, OWN),
    ],
)
def test_the_templates_own_words_are_told(template: str, words: str) -> None:
    assert Session(ScriptedEngine(template=template)).own_words() == words


def test_a_default_goes_for_an_empty_system_message() -> None:
    engine = ScriptedEngine(said("x"), said("y"), template=DEFAULT)
    session = Session(engine)
    assert session.drop_system() == ""
    assert session.own_words() == ""
    list(session.ask("Hi", Settings(Sampling())))
    assert OWN not in b"".join(map(engine.piece, engine.prompts[0])).decode()


@pytest.mark.parametrize(
    ("template", "words"),
    [(EMPTY_IS_NONE, OWN), (ALWAYS, "Today is Monday."), (NO_SYSTEM_BUT_OWN, OWN)],
)
def test_what_cannot_be_removed_is_told(template: str, words: str) -> None:
    session = Session(ScriptedEngine(template=template))
    assert session.drop_system() == words
    assert session.own_words() == words
    assert session.system is None


def test_a_system_prompt_of_ones_own_replaces_what_was_dropped() -> None:
    session = Session(ScriptedEngine(template=DEFAULT))
    session.drop_system()
    session.system = "Be brief."
    assert session.own_words() == ""
    assert session.drop_system() == ""


def test_raw_text_has_nothing_in_front() -> None:
    session = Session(ScriptedEngine(), raw=True)
    assert session.own_words() == session.drop_system() == ""
