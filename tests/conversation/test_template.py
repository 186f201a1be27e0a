"""Chat templates: rendered as Hugging Face does, in a sandbox, with clear errors."""

from __future__ import annotations

import datetime

import pytest

from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.errors import MtpError

HELLO = [Message(role="user", content="Hi <b>")]


def render(source: str) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(HELLO)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # What transformers' environment gives: blocks trimmed, no HTML escaping, loop controls.
        ("{% for m in messages %}\n  {% if true %}\nX\n  {% endif %}\n{% endfor %}", "X\n"),
        ("{{ messages[0].content }}", "Hi <b>"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi <b>"}]'),
        ("{{ {'b': 1, 'a': 'é'} | tojson(indent=1) }}", '{\n "b": 1,\n "a": "é"\n}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}", "<s></s>True"),
        ("{% generation %}{{ messages[0]['role'] }}{% endgeneration %}", "user"),
        ("{{ 'yes' if tools is none else 'no' }}", "yes"),
        ("{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}", "2"),
    ],
)
def test_it_renders_as_hugging_face_does(source: str, expected: str) -> None:
    assert render(source) == expected


def test_it_knows_today() -> None:
    assert render("{{ strftime_now('%Y') }}") == str(datetime.datetime.now().year)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% for %}", "malformed .*Expected an expression"),
        ("{{ raise_exception('System role not\nsupported') }}", "System role not supported"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ nothing.of.this }}", "needs a variable nothing: .*--template-var nothing=VALUE"),
        ("{{ messages[0].of.this }}", "no attribute 'of'"),
        ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
    ],
)
def test_its_failures_are_one_clear_line(source: str, said: str) -> None:
    with pytest.raises(MtpError, match=said) as caught:
        render(source)
    assert "chat template" in str(caught.value)
    assert "\n" not in str(caught.value)
