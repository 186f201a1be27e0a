"""Control tokens inside the text of an answer.

A control token has no text of its own. It comes in as its spelling between two lone surrogates,
which no decoded text can hold: so `<|channel|>` the token and `<|channel|>` the twelve characters
are never mistaken for each other.
"""

from __future__ import annotations

import re

_CONTROL_OPEN, _CONTROL_CLOSE = "\ud800", "\udfff"
_CONTROL = re.compile(f"{_CONTROL_OPEN}[^{_CONTROL_CLOSE}]*{_CONTROL_CLOSE}")
_NOTHING = re.compile(f"(?:{_CONTROL.pattern}|[\\s{_CONTROL_OPEN}{_CONTROL_CLOSE}])*")
_STRAY = {ord(_CONTROL_OPEN): None, ord(_CONTROL_CLOSE): None}


def as_control(spelling: str) -> str:
    """A control token's spelling as it comes into text."""
    return f"{_CONTROL_OPEN}{spelling}{_CONTROL_CLOSE}" if spelling else ""


def is_control(mark: str) -> bool:
    return mark.startswith(_CONTROL_OPEN)


def without_control(text: str) -> str:
    """Text as it is to be read: control tokens have none."""
    return _CONTROL.sub("", text).translate(_STRAY)


def spelled(text: str) -> str:
    """Text in which control tokens are their spellings."""
    return text.translate(_STRAY)


def n_margin(text: str) -> int:
    """How many characters at its beginning show nothing."""
    found = _NOTHING.match(text)
    return found.end() if found else 0
