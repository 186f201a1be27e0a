"""Breaks lines between words while text streams in. Knows columns, not terminals.

A word is held back until it is whole, so nothing that was shown is ever taken back. Code between
fences keeps its lines, for they are there to be copied.
"""

from __future__ import annotations

from collections.abc import Callable

from wcwidth import wcswidth, wcwidth

_FENCE = "```"


class WordWrap:
    """columns: how many there are now; asked at every word, since windows change."""

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._word = ""
        self._spaces = ""
        self._line = ""  # what the current line of the text, not of the screen, begins with
        self._column = 0
        self._in_code = False
        self._is_endless = False  # in a word longer than a line: the terminal's to break

    def feed(self, text: str) -> str:
        """What can be shown of all that came so far."""
        return "".join(map(self._feed_character, text))

    def flush(self) -> str:
        """What was held back; the text has ended."""
        return self._place()

    def _feed_character(self, character: str) -> str:
        if character == "\n":
            return self._end_line()
        self._line += character if len(self._line) < len(_FENCE) or self._line.isspace() else ""
        if self._in_code:
            return character
        if character in " \t":
            shown = self._place()
            self._spaces += character
            self._is_endless = False
            return shown
        if self._is_endless:
            self._column = (self._column + _width(character)) % self._columns()
            return character
        is_wide = wcwidth(character) == 2
        shown = self._place() if is_wide else ""  # lines of wide scripts break anywhere
        self._word += character
        if is_wide:
            return shown + self._place()
        if _width(self._word) < self._columns():
            return ""
        self._is_endless = True
        return self._place()

    def _end_line(self) -> str:
        shown = self._place() + "\n"
        if self._line.lstrip().startswith(_FENCE):
            self._in_code = not self._in_code
        self._line, self._spaces, self._column = "", "", 0
        self._is_endless = False
        return shown

    def _place(self) -> str:
        """Put the held word on this line, or at the start of the next where it does not fit."""
        if not self._word:
            return ""
        spaces, word = self._spaces, self._word
        self._word = self._spaces = ""
        width = _width(spaces) + _width(word)
        if self._column > 0 and self._column + width > self._columns():
            self._column = _width(word)
            return "\n" + word
        self._column += width
        return spaces + word


def _width(text: str) -> int:
    return max(wcswidth(text), 0) if text.isprintable() else len(text)
