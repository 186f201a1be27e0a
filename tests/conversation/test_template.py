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
        ("\n{% for %}", "is malformed in line 2"),
        ("{{ x", "is malformed in line 1"),
        (
            "\n\n{{ messages | nofilter }}",
            "uses a filter or test that Jinja does not have, in line 3",
        ),
        (
            "{{ raise_exception('System role not\nsupported') }}",
            "refuses: System role not supported",
        ),
        ("{{ messages.__class__.__mro__ }}", "reaches for what no template may touch, in line 1"),
        ("\n{{ messages.append(1) }}", "reaches for what no template may touch, in line 2"),
        ("{{ 1 / 0 }}", "divides by zero, in line 1"),
        ("{{ nothing.of.this }}", "needs a variable nothing: .*--template-var nothing=VALUE"),
        ("{{ messages[0].of.this }}", "reads what is not there, in line 1"),
        (
            "{% if true %}\n{{ 'a' + 1 }}\n{% endif %}",
            "takes a value for one of another kind, in line 2",
        ),
        ("{% for a, b in [1] %}{% endfor %}", "takes a value for one of another kind, in line 1"),
        ("{% include 'x' %}", "takes a value for one of another kind, in line 1"),
        ("{% set x.y = 1 %}", "does what Jinja does not allow, in line 1"),
        ("{{ '{'.format(1) }}", "fails, in line 1"),
    ],
)
def test_its_failures_are_one_clear_line_in_our_words(source: str, said: str) -> None:
    with pytest.raises(MtpError, match=f"^the chat template {said}") as caught:
        render(source)
    assert "\n" not in str(caught.value)


def test_its_own_words_are_cut_where_no_line_has_room_for_them() -> None:
    with pytest.raises(MtpError) as caught:
        render("{{ raise_exception('no ' * 900) }}")
    assert len(str(caught.value)) < 400
