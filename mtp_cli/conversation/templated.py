"""A chat template in use: what it renders, how answers are split, how much the model thinks.

Knows of the engine only its tokeniser.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mtp_cli.conversation import marks
from mtp_cli.conversation.control import as_control, spelled
from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.reasoning import Around, Splitter
from mtp_cli.conversation.template import GIVEN, ChatTemplate, Message
from mtp_cli.conversation.thinking import Thinking, thinking
from mtp_cli.conversation.tools import Calling, calling
from mtp_cli.errors import MtpError

Tools = Sequence[Mapping[str, Any]] | None


class Vocabulary(Protocol):
    """What is asked of an engine's tokeniser here."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...
    def piece(self, token: int, *, special: bool = False) -> bytes: ...


class Templated:
    """variables: the user's own, which go before all others.

    level: how much the model is told to think, as `--think` takes it; None as the template likes
    """

    def __init__(
        self, vocabulary: Vocabulary, template: ChatTemplate, variables: Mapping[str, Any]
    ) -> None:
        _check(variables)
        self._vocabulary = vocabulary
        self._template = FittedTemplate(template)
        self._variables = dict(variables)
        self._thinking = Thinking()
        self._controls: dict[int, str] = {}
        self._marks_heard: dict[str, str] = {}
        self.level: str | None = None
        self._notes: list[str] = []
        self._told: set[str] = set()
        unread = [name for name in variables if name not in template.names]
        if unread:
            self._notes.append(f"the chat template reads no variable {', '.join(unread)}")
        self._learn()

    def think(self, level: str | None) -> None:
        """Tell the model how much to think; MtpError where the template refuses."""
        found = Thinking()
        if level is not None:
            found = thinking(self._template, level, self._variables)
        self._thinking, self.level = found, level
        if found.note:
            self._notes.append(found.note)
        self._learn()

    def render(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """The prompt; MtpError where the template refuses or drops what it is given.

        tools: what the model may call, as the template takes it; None for nothing
        """
        rendered = self._template.render(messages, self._given_with(tools))
        self._notes += self._template.notes
        return rendered

    def preview(self, messages: Sequence[Message]) -> str:
        """The same for messages that no one said: nothing is noted."""
        return self._template.render(messages, self._given)

    def new_notes(self) -> list[str]:
        """What a user should know and was not told yet."""
        new = [note for note in dict.fromkeys(self._notes) if note not in self._told]
        self._told.update(new)
        self._notes.clear()
        return new

    def splitter(self, messages: Sequence[Message], tools: Tools = None) -> Splitter:
        """For the answer to `messages`, the last of which is a question."""
        tail = self._template.tail(messages, self._given_with(tools))
        closers = map(self._spelled, self._reasoning.closers(tail))
        return Splitter(self._reasoning.marks.mapped(self._spelled), tuple(closers))

    def control(self, token: int) -> str:
        """A control token as the splitter wants it; nothing for all others."""
        if token not in self._controls:
            spelling = b""
            if not self._vocabulary.piece(token):
                spelling = self._vocabulary.piece(token, special=True)
            self._controls[token] = as_control(spelling.decode(errors="replace"))
        return self._controls[token]

    def heard(self, messages: Sequence[Message], answer: Message) -> Splitter:
        """A splitter that has heard an answer to `messages`, as its model would have said it."""
        splitter = self.splitter(messages)
        closer = next(iter(splitter.closers), "")
        splitter.hear(answer.get("reasoning", ""), answer["content"], self._around(closer))
        return splitter

    def _around(self, closer: str) -> Around:
        """closer: what ends the reasoning that the prompt has opened, "" where it has not"""
        found = self._reasoning
        close = self._spelled(next(close for open_, close in found.marks.pairs if open_))
        between = self._spelled(found.between)
        return Around(
            opening=self._spelled(found.opening),
            close=close,
            closing=between if closer in ("", close) else f"\n{closer}\n\n",
            header=self._spelled(found.header),
        )

    @property
    def format(self) -> str:
        """All that this template and its model's answers write around texts."""
        found = self._reasoning.marks
        headers = (mark for pair in (*found.pairs, *found.headers) for mark in pair)
        return "\n".join((self.source, *headers, *found.contents, *found.ends))

    @property
    def reasoning_marks(self) -> tuple[str, ...]:
        """All that may stand around reasoning."""
        pairs = self._reasoning.marks.pairs
        return tuple(mark for pair in pairs for mark in pair if len(mark) > 1)

    @property
    def source(self) -> str:
        return self._template.template.source

    @property
    def _given(self) -> dict[str, Any]:
        return {**self._thinking.variables, **self._variables}

    def _given_with(self, tools: Tools) -> dict[str, Any]:
        return self._given if tools is None else {**self._given, "tools": tools}

    @functools.cached_property
    def calling(self) -> Calling | None:
        """How the template puts tools and calls of them; None where it knows of none."""
        return calling(self._template, self._given)

    def _learn(self) -> None:
        self._reasoning = marks.find(self._template, self._given, self._is_token)
        self._template.place = self._reasoning.place
        self._template.wraps = self._reasoning.wraps

    def _ids(self, text: str) -> list[int]:
        return self._vocabulary.tokenize(text, add_special=False, parse_special=True)

    def _is_token(self, text: str) -> bool:
        return len(self._ids(text)) == 1

    def _spelled(self, mark: str) -> str:
        """A mark as it is heard: control tokens as those, the rest as text."""
        if mark not in self._marks_heard:
            self._marks_heard[mark] = self._with_control(mark)
        return self._marks_heard[mark]

    def _with_control(self, mark: str) -> str:
        controls = {c for token in self._ids(mark) if (c := self.control(token))}
        spellings = {spelled(control): control for control in controls}
        if not mark or not spellings:
            return mark
        longest_first = sorted(map(re.escape, spellings), key=len, reverse=True)
        return re.sub("|".join(longest_first), lambda m: spellings[m.group()], mark)


def _check(variables: Mapping[str, Any]) -> None:
    own = sorted(GIVEN & variables.keys())
    if own:
        raise MtpError(f"the conversation itself gives the chat template {', '.join(own)}")
