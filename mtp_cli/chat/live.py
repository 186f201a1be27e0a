"""A line below an answer while it comes: drawn after each piece of text, taken back before it.

Knows where a terminal's cursor is after a text. Knows nothing of answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TextIO

from wcwidth import iter_graphemes

from mtp_cli.screen import cells, cut, dim, is_dumb, is_terminal, width

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_TAB = 8  # columns between tab stops
# Terminals that know it show what is between the two at once; others ignore it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_CLEAR_BELOW = "\x1b[J"


class LiveLine:
    """describe: what the line says, "" for no line; screen: the terminal that shows the answer."""

    def __init__(self, describe: Callable[[], str], screen: TextIO, *, quiet: bool) -> None:
        self._describe = describe
        self._screen = screen
        self._is_live = not quiet and is_terminal(screen) and not is_dumb()
        self._line = ""  # what the cursor's line of text says
        self._is_shown = self._is_begun = False

    def take_back(self) -> None:
        """Before text is written: `show_below` is to follow."""
        if self._is_shown:
            self._write(_BEGIN + _CLEAR_BELOW)
            self._is_shown, self._is_begun = False, True

    def show_below(self, text: str) -> None:
        """Draw the line below `text`, which has just been written where the last one ended."""
        if self._is_live:
            self._line = (self._line + _STYLES.sub("", text)).rpartition("\n")[2]
            drawn = self._drawn(width(self._screen))
            self._is_shown = bool(drawn)
            self._write(drawn + _END * self._is_begun)
            self._is_begun = False

    def _drawn(self, columns: int) -> str:
        at, line = column(self._line, columns), cut(self._describe(), columns - 1)
        if not line or at >= columns:  # where the next character goes is not certain
            return ""
        forward = f"\x1b[{at}C" if at else ""
        return f"\n{dim(line, self._screen)}\x1b[A\r{forward}"

    def end(self) -> None:
        """No text follows, or something else will be written below it."""
        if self._is_shown:
            self._write(_CLEAR_BELOW)
            self._is_shown = False

    def _write(self, codes: str) -> None:
        if codes:
            self._screen.write(codes)
            self._screen.flush()


def column(line: str, columns: int) -> int:
    """Where a terminal's cursor is after a line of text; `columns`: waiting at the right edge."""
    at = 0
    for cluster in iter_graphemes(line):
        if cluster == "\t":
            at = min(at + _TAB - at % _TAB, columns - 1)
            continue
        n_cells = cells(cluster)
        at = n_cells if at + n_cells > columns else at + n_cells
    return at
