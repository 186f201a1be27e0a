"""What is wrong with a chat template, in words of ours: each goes on from "the chat template".

Jinja2 and Python say it for who wrote the template, in their own words and not always in one line.
What a template itself refuses with, it says to the user: those words stay.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Container

import jinja2
from jinja2.exceptions import SecurityError

from mtp_cli.conversation.bounded import TEMPLATE, TooMuchError

_MAX_SAID = 300  # characters of a template's own words that go on a line

_FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (SecurityError, "reaches for what no template may touch"),
    (jinja2.UndefinedError, "reads what is not there"),
    (jinja2.TemplateAssertionError, "uses a filter or test that Jinja does not have"),
    (jinja2.TemplateRuntimeError, "does what Jinja does not allow"),
    (RecursionError, "calls itself without end"),
    (ZeroDivisionError, "divides by zero"),
    (OverflowError, "counts too far"),
    (TypeError, "takes a value for one of another kind"),
)


class RefusalError(jinja2.TemplateError):
    """What a template says itself, by `raise_exception`."""


def fault(error: Exception, names: Container[str]) -> str:
    """Why it renders nothing; names: the variables that it reads."""
    if isinstance(error, RefusalError):
        return f"refuses: {_shortened(str(error))}"
    missing = re.fullmatch(r"'(\w+)' is undefined", str(error))
    if isinstance(error, jinja2.UndefinedError) and missing and missing[1] in names:
        name = missing[1]
        return f"needs a variable {name}: give it as --template-var {name}=VALUE"
    if isinstance(error, TooMuchError):
        return f"{error}, in line {_line(error)}"
    said = next((text for kind, text in _FAULTS if isinstance(error, kind)), "fails")
    return f"{said}, in line {_line(error)}"


def malformed(error: Exception) -> str:
    """Why it does not compile."""
    if isinstance(error, jinja2.TemplateAssertionError):
        return f"uses a filter or test that Jinja does not have, in line {error.lineno}"
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"is malformed in line {error.lineno}"
    return "is nested too deeply"


def _line(error: Exception) -> int:
    """The line of the template that was being rendered: Jinja2 writes it into the traceback."""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == TEMPLATE
    ]
    return lines[-1] if lines else 1


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SAID else text[: _MAX_SAID - 1] + "…"
