"""How an answer with reasoning is shown: reasoning dim in a terminal, left out of a pipe.

Knows streams and parts. Where nothing can be dim, reasoning stands between `<think>` lines.
"""

from __future__ import annotations

from typing import TextIO

from mtp_cli.chat.terminal import AnswerStream
from mtp_cli.conversation.reasoning import Part
from mtp_cli.screen import dim

_OPEN, _CLOSE = "<think>\n", "</think>\n"


class SpokenStream:
    """Writes an answer's parts as they come; is_shown: whether reasoning is among them."""

    def __init__(self, out: TextIO, *, is_shown: bool) -> None:
        self._out = out
        self._is_shown = is_shown
        before, _text, after = dim("\n", out).partition("\n")
        self._marks = (before, after) if before else (_OPEN, _CLOSE)
        self._thought: AnswerStream | None = None
        self._said = AnswerStream(out)

    def shows(self, part: Part) -> bool:
        return self._is_shown or part.kind == "content"

    def write(self, part: Part) -> None:
        if not self.shows(part):
            return
        if part.kind == "content":
            self._end_thought("\n")
            self._said.write(part.text)
            return
        if self._thought is None:
            self._said.end()
            self._said = AnswerStream(self._out)
            self._thought = AnswerStream(self._out)
            self._out.write(self._marks[0])
        self._thought.write(part.text)

    def end(self) -> None:
        self._end_thought("")
        self._said.end()

    def _end_thought(self, space: str) -> None:
        if self._thought is not None:
            self._thought.end()
            self._thought = None
            self._out.write(self._marks[1] + space)
            self._out.flush()
