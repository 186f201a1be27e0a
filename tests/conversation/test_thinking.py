"""How much to think, told by the variables that a template reads."""

from __future__ import annotations

from typing import Any

import pytest

from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.template import ChatTemplate
from mtp_cli.conversation.thinking import thinking
from mtp_cli.errors import MtpError

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
SWITCH = TURNS + "{{ '<think></think>' if enable_thinking is defined and not enable_thinking }}"
OTHER_SWITCH = TURNS + "{{ '<think>' if thinking }}"
BOTH = TURNS + (
    "{% if thinking is not defined %}{% set thinking = enable_thinking %}{% endif %}"
    "{{ '<think>' if thinking else '</think>' }}{{ reasoning_effort if reasoning_effort == 'max' }}"
)
ANY_EFFORT = "Reasoning: {{ reasoning_effort | default('medium') }}" + TURNS
CHECKED_EFFORT = (
    "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'no_think' %}"
    "{% elif reasoning_effort not in ['high', 'low', 'no_think'] %}"
    "{{ raise_exception('not ' + reasoning_effort + ', should be low or high') }}{% endif %}"
    "effort:{{ reasoning_effort }}" + TURNS
)
EFFORT_AND_SWITCH = (
    "{% if thinking is undefined %}{% set thinking = true %}{% endif %}"
    "{{ 'effort ' ~ (thinking_effort or 'max') if thinking }}" + TURNS
)
BUDGET = TURNS + "{{ 'budget ' ~ thinking_budget if thinking_budget is defined }}"
MODE = TURNS + (
    "{{ 'on' if thinking_mode == 'enabled' else 'off' if thinking_mode == 'disabled' else 'auto' }}"
)
LOOKS_FOR_WORDS = TURNS + "{{ '<think>' if '/no_think' not in messages[0].content }}"
NOTHING = "the chat template has no such switch for thinking"
USES_THE_NAME_OTHERWISE = "{% set thinking = 'a word' %}{{ thinking }}" + TURNS


def told(source: str, level: str, **given: Any) -> tuple[dict[str, Any], str | None]:
    template = FittedTemplate(ChatTemplate(source, bos="<s>", eos="</s>"))
    found = thinking(template, level, given)
    return dict(found.variables), found.note


@pytest.mark.parametrize(
    ("source", "level", "variables"),
    [
        (SWITCH, "off", {"enable_thinking": False}),
        (SWITCH, "on", {"enable_thinking": True}),
        (OTHER_SWITCH, "off", {"thinking": False}),
        (OTHER_SWITCH, "on", {"thinking": True}),
        (BOTH, "off", {"enable_thinking": False, "thinking": False}),
        (BOTH, "max", {"enable_thinking": True, "thinking": True, "reasoning_effort": "max"}),
        (ANY_EFFORT, "low", {"reasoning_effort": "low"}),
        (ANY_EFFORT, "medium", {"reasoning_effort": "medium"}),
        (ANY_EFFORT, "on", {}),
        (CHECKED_EFFORT, "off", {"reasoning_effort": "no_think"}),
        (CHECKED_EFFORT, "on", {"reasoning_effort": "high"}),
        (CHECKED_EFFORT, "low", {"reasoning_effort": "low"}),
        (EFFORT_AND_SWITCH, "off", {"thinking": False}),
        (EFFORT_AND_SWITCH, "low", {"thinking": True, "thinking_effort": "low"}),
        (BUDGET, "off", {"thinking_budget": 0}),
        (BUDGET, "512", {"thinking_budget": 512}),
        (MODE, "off", {"thinking_mode": "disabled"}),
        (MODE, "on", {"thinking_mode": "enabled"}),
    ],
)
def test_a_level_becomes_the_template_s_own_variables(
    source: str, level: str, variables: dict[str, Any]
) -> None:
    assert told(source, level) == (variables, None)


@pytest.mark.parametrize(
    ("source", "level", "variables", "note"),
    [
        (TURNS, "off", {}, NOTHING),
        (TURNS, "on", {}, NOTHING),
        (TURNS, "high", {}, NOTHING),
        (ANY_EFFORT, "off", {}, NOTHING),
        (USES_THE_NAME_OTHERWISE, "off", {}, NOTHING),
        (
            LOOKS_FOR_WORDS,
            "off",
            {},
            f"{NOTHING}, but it looks for /no_think in the system prompt",
        ),
        (
            SWITCH,
            "low",
            {"enable_thinking": True},
            "the chat template has no effort low: thinking is on",
        ),
        (ANY_EFFORT, "512", {}, NOTHING),
        (MODE, "low", {}, NOTHING),
    ],
)
def test_what_the_template_does_not_know_is_noted_in_a_line(
    source: str, level: str, variables: dict[str, Any], note: str
) -> None:
    assert told(source, level) == (variables, note)


def test_what_the_template_refuses_is_refused_in_its_own_words() -> None:
    with pytest.raises(MtpError, match=r"--think medium: .*not medium, should be low or high"):
        told(CHECKED_EFFORT, "medium")


def test_the_user_s_own_variables_go_first() -> None:
    assert told(SWITCH, "off", enable_thinking=True) == ({}, NOTHING)
