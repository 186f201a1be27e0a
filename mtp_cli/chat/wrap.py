"""Breaks lines between words while text streams in. Knows columns, not terminals.

A word is held back until it is whole, so nothing that was shown is ever taken back, and so is the
newest grapheme cluster: what follows may belong to it (an accent, the next part of an emoji). Code
between fences keeps its lines, for they are there to be copied.
"""

from __future__ import annotations

from collections.abc import Callable

from wcwidth import iter_graphemes

from mtp_cli.chat.fences import Fences
from mtp_cli.screen import cells

_TAB = 8  # columns between tab stops


class WordWrap:
    """columns: how many there are now; asked at every word, since windows change."""

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._cluster = ""
        self._word, self._n_cells = "", 0
        self._has_text = False  # the word may be codes alone, see `mark`
        self._spaces = ""
        self._line = ""  # what the current line of the text, not of the screen, begins with
        self._column = 0
        self._fences = Fences()
        self._is_endless = False  # in a word longer than a line: the terminal's to break

    def feed(self, text: str) -> str:
        """What can be shown of all that came so far."""
        *whole, self._cluster = ("", *iter_graphemes(self._cluster + text))
        return "".join(map(self._feed_cluster, whole))

    def mark(self, code: str) -> str:
        """Put `code`, which takes no room, between what came and what comes; it is held back with
        the word that it stands at, so that both are shown at once."""
        last, self._cluster = self._cluster, ""
        shown = self._feed_cluster(last)
        if self._fences.is_open or self._is_endless:
            return shown + code
        self._word += code
        return shown

    def flush(self) -> str:
        """What was held back; the text has ended."""
        last, self._cluster = self._cluster, ""
        return self._feed_cluster(last) + self._place()

    def _feed_cluster(self, cluster: str) -> str:
        if not cluster:
            return ""
        if cluster == "\n":
            return self._end_line()
        self._line += cluster
        if self._fences.is_open:
            return cluster
        if cluster in (" ", "\t"):
            shown = self._place()
            self._spaces += cluster
            self._is_endless = False
            return shown
        n_cells = cells(cluster)
        if self._is_endless:
            self._column = self._after(n_cells)
            return cluster
        is_wide = n_cells == 2
        shown = self._place() if is_wide else ""  # lines of wide scripts break anywhere
        self._word += cluster
        self._has_text = True
        self._n_cells += n_cells
        if is_wide:
            return shown + self._place()
        if self._n_cells < self._columns():
            return ""
        self._is_endless = True
        return self._place()

    def _end_line(self) -> str:
        shown = self._place() + "\n"
        self._fences.end_line(self._line)
        self._line, self._spaces, self._column = "", "", 0
        self._is_endless = False
        return shown

    def _place(self) -> str:
        """Put the held word on this line, or at the start of the next where it does not fit."""
        if not self._has_text:
            codes, self._word = self._word, ""
            return codes
        spaces, word, n_cells = self._spaces, self._word, self._n_cells
        self._word, self._n_cells, self._spaces = "", 0, ""
        self._has_text = False
        start = self._column
        for space in spaces:
            start += _TAB - start % _TAB if space == "\t" else 1
        if self._column > 0 and start + n_cells > self._columns():
            self._column = n_cells
            return "\n" + word
        self._column = start + n_cells
        return spaces + word

    def _after(self, n_cells: int) -> int:
        """The column after so many more cells, where the terminal goes on in the next line."""
        end = self._column + n_cells
        return end if end <= self._columns() else n_cells
