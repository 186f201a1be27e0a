"""Tells a template how much to think, by the variables that it reads for that.

Which variables a template knows is seen from what it renders with and without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.marks import QUESTION
from mtp_cli.errors import MtpError

_SWITCHES = ("enable_thinking", "thinking")  # on or off
_EFFORT = re.compile(r"effort|(reasoning|thinking|think)_(effort|strength|level|budget)")
_MODE = re.compile(r"(reasoning|thinking|think)_(mode|option)")
_OFF_WORDS = ("none", "no_think", "off", "disabled", "chat", "minimal")
_ON_WORDS = ("enabled", "on")
_OFF_IN_TEXT = "/no_think"  # some templates look for it in the system prompt


@dataclass(frozen=True)
class Thinking:
    """What makes a template think as wished: its variables, and what a user should know."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


def thinking(template: FittedTemplate, level: str, given: Mapping[str, Any]) -> Thinking:
    """Variables for `level`; those in `given` are the user's own. MtpError where it is refused."""
    ask = _Asker(template, given)
    if level == "off":
        variables = next(ask.off(), None)
        return Thinking({}, _no_switch(template)) if variables is None else Thinking(variables)
    if level == "on":
        return _on(template, ask)
    return _effort(template, ask, level)


class _Asker:
    """Tries variables on a template."""

    def __init__(self, template: FittedTemplate, given: Mapping[str, Any]) -> None:
        self._template, self._given = template, given
        names = template.template.names - given.keys()
        self.switches = [name for name in _SWITCHES if name in names and self._is_switch(name)]
        self.efforts = sorted(name for name in names if _EFFORT.fullmatch(name))
        self.modes = sorted(name for name in names if _MODE.fullmatch(name))

    def prompt(self, variables: Mapping[str, Any]) -> str | None:
        return self._template.probe([QUESTION], {**self._given, **variables})

    def problem(self, variables: Mapping[str, Any]) -> MtpError | None:
        try:
            self._template.template.apply([dict(QUESTION)], **{**self._given, **variables})
        except MtpError as error:
            return error
        return None

    def changes(self, variables: Mapping[str, Any]) -> bool:
        return self.prompt(variables) not in (None, self.prompt({}))

    def _is_switch(self, name: str) -> bool:
        return self.prompt({name: True}) != self.prompt({name: False})

    def off(self) -> Iterator[dict[str, Any]]:
        """What switches thinking off, the surest first."""
        if self.switches:
            yield dict.fromkeys(self.switches, False)
        for name in (*self.efforts, *self.modes):
            for value in self._words(_OFF_WORDS):
                if self.changes({name: value}) or self.changes({name: "high"}):
                    yield {name: value}
            if name.endswith("budget") and self.changes({name: 0}):
                yield {name: 0}

    def on(self) -> Iterator[dict[str, Any]]:
        if self.switches:
            yield dict.fromkeys(self.switches, True)
        for name in (*self.efforts, *self.modes):
            yield from ({name: value} for value in self._words(_ON_WORDS))
        for variables in self.off():
            if not self.changes(variables):  # it is off until an effort is asked for
                yield dict.fromkeys(variables, "high")
        if self.efforts:
            yield {}

    def _words(self, words: tuple[str, ...]) -> list[str]:
        """Of `words`, those that the template compares with."""
        return [word for word in words if word in self._template.template.constants]


def _on(template: FittedTemplate, ask: _Asker) -> Thinking:
    variables = next(ask.on(), None)
    return Thinking({}, _no_switch(template)) if variables is None else Thinking(variables)


def _effort(template: FittedTemplate, ask: _Asker, level: str) -> Thinking:
    value: str | int = int(level) if level.isdecimal() else level
    on = dict.fromkeys(ask.switches, True)
    known = {}
    for name in ask.efforts:
        if isinstance(value, str) == name.endswith("budget"):
            continue
        problem = ask.problem({**on, name: value})
        if problem is not None and ask.problem(on) is None:
            raise MtpError(f"--think {level}: {problem}")
        is_usual = value in template.template.constants and ask.changes({**on, name: "high"})
        if ask.prompt({**on, name: value}) != ask.prompt(on) or is_usual:
            known[name] = value
    if known:
        return Thinking({**on, **known})
    if on:
        return Thinking(on, f"the chat template has no effort {level}: thinking is on")
    return Thinking({}, _no_switch(template))


def _no_switch(template: FittedTemplate) -> str:
    note = "the chat template has no such switch for thinking"
    if _OFF_IN_TEXT in template.template.source:
        return f"{note}, but it looks for {_OFF_IN_TEXT} in the system prompt"
    return note
