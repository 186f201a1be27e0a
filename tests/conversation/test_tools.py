"""How templates put tools is seen from what they render."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mtp_cli.conversation.calls import read
from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.template import ChatTemplate
from mtp_cli.conversation.tools import Calling, calling

_TURN = "{{ '<|' + m.role + '|>' + m.content }}"
_SHOWN = "{% if tools %}{{ tools | tojson }}{% endif %}"
_EACH = "{% for m in messages %}"
_CALLS = "{% for c in m.tool_calls or [] %}"
_END = "{% endfor %}{% endfor %}"
HERMES = (
    f"{_SHOWN}{_EACH}{_TURN}{_CALLS}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    f"\n</tool_call>{_END}"
)
LLAMA = (
    f"{_SHOWN}{_EACH}{_TURN}{_CALLS}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}' + _END
)
AS_TEXT = (
    f"{_SHOWN}{_EACH}{_TURN}{_CALLS}[TOOL_CALLS]"
    "{{ c.function.name + '[ARGS]' + c.function.arguments }}" + _END
)
PYTHONIC = f"{_SHOWN}{_EACH}{_TURN}{_CALLS}<tool_call>{{{{ c.function.name }}}}(x){_END}"


def found(source: str) -> Calling | None:
    return calling(FittedTemplate(ChatTemplate(source, bos="", eos="")), {})


@pytest.mark.parametrize(
    ("source", "takes_text", "marks", "is_bare"),
    [
        (HERMES, False, ("<tool_call>",), False),
        (LLAMA, False, (), True),
        (AS_TEXT, True, ("[TOOL_CALLS]",), False),
    ],
)
def test_the_form_is_seen(
    source: str, takes_text: bool, marks: tuple[str, ...], is_bare: bool
) -> None:
    form = found(source)
    assert form is not None
    assert (form.takes_text, form.marks, form.is_bare) == (takes_text, marks, is_bare)
    assert form.is_known


def test_a_template_that_shows_no_tools_defines_none() -> None:
    assert found(_EACH + _TURN + "{% endfor %}") is None


def test_calls_that_would_not_be_read_back_are_left_alone() -> None:
    form = found(PYTHONIC)
    assert form is not None
    assert not form.is_known


def test_marks_that_are_only_described_count() -> None:
    """Some templates tell the model how to call, and have no place for calls of its own."""
    told = "{% if tools %}Call within <tool_call>: {{ tools | tojson }}{% endif %}"
    form = found(told + _EACH + "{% if m.tool_calls %}{% continue %}{% endif %}" + _TURN +
                 "{% endfor %}")  # fmt: skip
    assert form is not None
    assert form.marks == ("<tool_call>",)


@pytest.mark.templates
def test_real_templates() -> None:
    """Of those that show tools and write calls, nearly all are read back."""
    folder = Path(os.environ["MTP_TEMPLATES"])
    forms = [found(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.jinja"))]
    shown = [form for form in forms if form is not None and "qzwtool" in form.written]
    known = [form for form in shown if form.is_known]
    for form in known:
        start = max((form.written.find(mark) for mark in form.marks), default=0)
        assert [call.name for call in read(form.written[max(start, 0) :], {})] == ["qzwtool"]
    assert len(known) > 0.7 * len(shown) > 0
