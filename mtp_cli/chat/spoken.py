"""How an answer with reasoning is shown: reasoning dim in a terminal, left out of a pipe.

Knows streams and parts. Where nothing can be dim, reasoning stands between `<think>` lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from mtp_cli.chat.markdown import MARK, Run, Styler
from mtp_cli.chat.terminal import AnswerStream
from mtp_cli.conversation.reasoning import Part
from mtp_cli.screen import shows_styles

_OPEN, _CLOSE = "<think>\n", "</think>\n"


class _Dim:
    """All in one style."""

    def feed(self, text: str) -> list[Run]:
        return [Run(text, MARK)]

    def flush(self) -> list[Run]:
        return []


class SpokenStream:
    """Writes an answer's parts as they come; is_shown: whether reasoning is among them.

    before_text, after_text: called before and after anything is written
    styler: makes what gives the answer its styles, where a terminal shows them
    """

    def __init__(
        self,
        out: TextIO,
        *,
        is_shown: bool,
        before_text: Callable[[], None] = lambda: None,
        after_text: Callable[[str], None] = lambda text: None,
        styler: Callable[[], Styler | None] = lambda: None,
    ) -> None:
        self._out = out
        self._before_text = before_text
        self._after_text = after_text
        self._styler = styler if shows_styles(out) else lambda: None
        self._is_shown = is_shown
        self._marks = ("", "") if shows_styles(out) else (_OPEN, _CLOSE)
        self._thought: AnswerStream | None = None
        self._said = self._stream(self._styler())
        self._begins = False  # content, after a thought that has a blank line behind it

    def _stream(self, styler: Styler | None) -> AnswerStream:
        return AnswerStream(self._out, self._before_text, self._after_text, styler)

    def write(self, part: Part) -> bool:
        """False for a part that is not to be shown."""
        if part.kind == "content":
            self._end_thought("\n")
            self._said.write(part.text.lstrip("\n") if self._begins else part.text)
            self._begins = False
            return True
        if self._is_shown:
            self._write_thought(part.text)
        return self._is_shown

    def _write_thought(self, text: str) -> None:
        if self._thought is None:
            self._said.end()
            self._said = self._stream(self._styler())
            self._thought = self._stream(_Dim() if shows_styles(self._out) else None)
            self._write(self._marks[0])
        self._thought.write(text)

    def pause(self) -> None:
        """Leave a terminal's line to others until more is written."""
        self._said.pause()

    def end(self) -> None:
        self._end_thought("")
        self._said.end()

    def _end_thought(self, space: str) -> None:
        if self._thought is not None:
            self._thought.end()
            self._thought = None
            self._begins = True
            self._write(self._marks[1] + space)

    def _write(self, text: str) -> None:
        self._before_text()
        self._out.write(text)
        self._out.flush()
        self._after_text(text)
