"""How a chat template puts tools and calls of them: it renders words of our own, and we look.

Knows templates and no token ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtp_cli.conversation.calls import Call, CallScanner, read
from mtp_cli.conversation.marks import QUESTION
from mtp_cli.conversation.template import Message

if TYPE_CHECKING:
    from mtp_cli.conversation.forms import FittedTemplate

MARKS = (
    "<tool_call>",
    "<tool_calls>",
    "[TOOL_CALLS]",
    "<|tool_call|>",
    "<|tool_call>",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "<\uff5ctool\u2581call\u2581begin\uff5c>",
    "<|START_ACTION|>",
    "<|python_tag|>",
    "<function_call>",
    "<TOOLCALL>",
    "<function=",
)
"""What models begin calls of tools with."""

NAME, OTHER_NAME, KEY, VALUE = "qzwtool", "qzwtwin", "qzwkey", "qzwvalue"
"""What a call is written of, so that it is found in what a template writes."""

ID = "qzwcall01"  # Mistral's templates want nine letters and digits
_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "qzwdescription",
        "parameters": {
            "type": "object",
            "properties": {KEY: {"type": "string", "description": "qzwwhat"}},
            "required": [KEY],
        },
    },
}
_AS_OBJECT: Mapping[str, Any] = {KEY: VALUE}
_AS_TEXT = f'{{"{KEY}": "{VALUE}"}}'
_AS_PYTHON = re.compile(rf"""'{KEY}'|\\"{KEY}""")  # a printed dict, or JSON inside JSON
_BARE = re.compile(r"""\{\s*"(?:name|type|function)":""")


@dataclass(frozen=True)
class Calling:
    """What a template does with tools.

    takes_text: arguments go to it as JSON text, not as an object
    marks:      what calls begin with
    is_bare:    calls are JSON without any mark
    written:    a call as it writes one; control tokens that are spelled here belong to calls
    twice:      two calls as it writes them together; "" where it does not
    """

    takes_text: bool
    marks: tuple[str, ...]
    is_bare: bool
    written: str
    twice: str = ""

    @property
    def is_known(self) -> bool:
        """Whether calls can be told from text."""
        return bool(self.marks) or self.is_bare

    def scanner(self) -> CallScanner:
        return CallScanner(self.marks, is_bare=self.is_bare)


def calling(template: FittedTemplate, variables: Mapping[str, Any]) -> Calling | None:
    """Ask the template; None where it does not show the tools that it is given."""
    given = {**variables, "tools": [_TOOL]}
    if NAME not in (template.probe([QUESTION], given) or ""):
        return None
    tried = {kind: _written(template, given, kind) for kind in (False, True)}
    takes_text = _is_right(tried[True]) and not _is_right(tried[False])
    written = tried[takes_text]
    source = template.template.source
    marks = _marks_in(written) or (() if _BARE.search(written) else _marks_in(source))
    is_bare = not marks and bool(_BARE.search(written))
    if is_bare:  # and where the template names it, a mark that the model may put before it
        marks = _marks_in(source)
    if NAME in written and not _is_read(written, marks):
        return Calling(takes_text, (), False, written)
    twice = _written(template, given, takes_text, (NAME, OTHER_NAME))
    return Calling(takes_text, marks, is_bare, written, twice)


def _written(
    template: FittedTemplate,
    given: Mapping[str, Any],
    takes_text: bool,
    names: Sequence[str] = (NAME,),
) -> str:
    """Calls as the template writes them, "" where it does not."""
    arguments = _AS_TEXT if takes_text else _AS_OBJECT
    calls = [
        {"id": ID, "type": "function", "function": {"name": name, "arguments": arguments}}
        for name in names
    ]
    said = Message(role="assistant", content="", more={"tool_calls": calls})
    given_back = Message(role="tool", content="qzwgiven", more={"tool_call_id": ID, "name": NAME})
    talks: Sequence[Sequence[Message]] = ([QUESTION, said], [QUESTION, said, given_back])
    for messages in talks:
        rendered = template.probe(messages, given, answering=False)
        if rendered is not None:
            return rendered.rpartition(QUESTION["content"])[2].partition("qzwgiven")[0]
    return ""


def _is_right(written: str) -> bool:
    return NAME in written and VALUE in written and not _AS_PYTHON.search(written)


def _is_read(written: str, marks: Sequence[str]) -> bool:
    """Whether the call that the template wrote is read back as it was."""
    start = max((written.find(mark) for mark in marks), default=0)
    return read(written[max(start, 0) :], {}) == [Call(NAME, _AS_TEXT)]


def _marks_in(text: str) -> tuple[str, ...]:
    """The marks that a text has, without those that only stand inside another's calls."""
    places = sorted((text.find(mark), mark) for mark in MARKS if mark in text)
    return tuple(mark for _at, mark in places[:1])
