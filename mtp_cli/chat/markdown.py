"""Markdown as it streams: every character stays where it was said, and gets a style.

What is on the screen can be copied as it was said, nothing is drawn twice, and nothing waits but
marks whose meaning the next character decides, and a line of code until it is whole. Follows
CommonMark 0.31, except that emphasis ends with its line and that a mark which opens something is
believed before the one that closes it has come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mtp_cli.chat.fences import Fences

_MARKS = "*_`~"
# What may still become the beginning of a block: a quote, a heading, an item, a rule, a fence.
_UNDECIDED = re.compile(r"[ \t>]*(?:#{1,6}|[-*+_]+|\d{1,9}[.)]?|`+|~+)?")
_HEAD = re.compile(
    r"(?P<quote>[ \t]*>[ \t>]*)?(?P<indent>[ \t]*)"
    r"(?:(?:(?P<heading>#{1,6})|(?P<item>[-*+]|\d{1,9}[.)]))(?=[ \t]))?"
)
_RULE = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*")

# Styles in rich's words, of the terminal's own colours: they suit light and dark ones.
MARK, HEADING, ITEM, CODE = "dim", "bold", "cyan", "cyan"
_EMPHASIS = {"*": "italic", "_": "italic", "**": "bold", "__": "bold", "~~": "strike"}


class Run(NamedTuple):
    """text with a style of rich's; "" for none."""

    text: str
    style: str


class Styler(Protocol):
    """Gives text its styles as it comes: every character comes out once, in order."""

    def feed(self, text: str) -> list[Run]: ...
    def flush(self) -> list[Run]:
        """What was held back; the line is broken here, or the text has ended."""


Highlight = Callable[[Sequence[str], str], list[Run]]


class Markdown:
    """highlight: given lines of code and their language, the last of them in its colours"""

    def __init__(self, highlight: Highlight) -> None:
        self._highlight = highlight
        self._fences = Fences()
        self._code: list[str] = []
        self._runs: list[Run] = []
        self._begin_line()

    def _begin_line(self) -> None:
        self._line = ""
        self._is_head = True  # nothing of the line was given out yet
        self._block = ""  # the style of all that the line says
        self._open: list[str] = []  # marks that wait for those that close them
        self._marks = ""  # of a row of the same, until what follows is known
        self._before = " "  # the character in front of them
        self._is_address = self._is_escaped = False

    def feed(self, text: str) -> list[Run]:
        for char in text:
            self._feed(char)
        return self._taken()

    def flush(self) -> list[Run]:
        self._end_text()
        return self._taken()

    def _taken(self) -> list[Run]:
        runs, self._runs = self._runs, []
        return runs

    def _give(self, text: str, style: str) -> None:
        if not text:
            return
        if self._runs and self._runs[-1].style == style:
            text = self._runs.pop().text + text
        self._runs.append(Run(text, style))

    def _feed(self, char: str) -> None:
        if char == "\n":
            self._end_line()
            return
        self._line += char
        if not self._is_head:
            self._say(char)
        elif not self._may_be_fence() and not _UNDECIDED.fullmatch(self._line):
            self._begin_block(self._line)

    def _may_be_fence(self) -> bool:
        return self._fences.is_open or self._line.lstrip().startswith(("```", "~~~"))

    def _end_line(self) -> None:
        was_open = self._fences.is_open
        if self._is_head and self._fences.end_line(self._line):
            self._code = []
            self._give(self._line, MARK)
        elif was_open:
            self._end_code_line()
        elif _RULE.fullmatch(self._line) and self._is_head:
            self._give(self._line, MARK)
        else:
            self._end_text()
        self._give("\n", "")
        self._begin_line()

    def _end_code_line(self) -> None:
        self._code.append(self._line)
        if self._is_head:
            for run in self._highlight(self._code, self._fences.info):
                self._give(*run)

    def _end_text(self) -> None:
        if self._is_head:
            self._begin_block(self._line)
        self._end_marks(" ")

    def _begin_block(self, line: str) -> None:
        """Tell what kind of block a line belongs to, and say the rest of what has come of it."""
        self._is_head = False
        head = None if self._fences.is_open else _HEAD.match(line)
        end = 0
        if head is not None:
            end = head.end()
            self._give(head["quote"] or "", MARK)
            self._give(head["indent"], "")
            self._give(head["heading"] or "", MARK)
            self._give(head["item"] or "", ITEM)
            self._block = HEADING if head["heading"] else ""
        for char in line[end:]:
            self._say(char)

    def _say(self, char: str) -> None:
        if self._fences.is_open:  # of a line of code that was broken off: marks mean nothing
            self._give(char, "")
        elif self._is_escaped:
            self._is_escaped = False
            self._tell(char)
        elif char in _MARKS and (not self._marks or char == self._marks[0]):
            self._marks += char
        else:
            self._end_marks(char)
            if char in _MARKS:
                self._marks = char
            else:
                self._tell_or_mark(char)

    def _tell_or_mark(self, char: str) -> None:
        in_code = self._code_mark() is not None
        if char == "\\" and not in_code:
            self._is_escaped = True
        if char == "(" and self._before == "]" and not in_code:
            self._is_address = True
        is_border = char == "|" and not in_code and self._line.lstrip().startswith("|")
        self._tell(char, MARK if is_border else None)
        if char in ") ":
            self._is_address = False

    def _tell(self, text: str, style: str | None = None) -> None:
        if text:
            self._give(text, self._style() if style is None else style)
            self._before = text[-1]

    def _style(self) -> str:
        if self._code_mark() is not None:
            return CODE
        if self._is_address:
            return MARK
        parts = [self._block, *(_EMPHASIS[mark] for mark in self._open)]
        return " ".join(dict.fromkeys(filter(None, parts)))

    def _code_mark(self) -> str | None:
        return self._open[-1] if self._open and self._open[-1][0] == "`" else None

    def _end_marks(self, following: str) -> None:
        """Say a row of marks, now that it is known what follows."""
        marks, self._marks = self._marks, ""
        if not marks:
            return
        code = self._code_mark()
        if code is not None:
            self._end_code(marks, code)
        elif marks[0] == "`":
            self._tell(marks, MARK)
            self._open.append(marks)
        elif marks in _EMPHASIS or marks in ("***", "___"):
            self._emphasise(marks, following)
        else:
            self._tell(marks)

    def _end_code(self, marks: str, code: str) -> None:
        if marks == code:
            self._open.pop()
            self._tell(marks, MARK)
        else:
            self._tell(marks)

    def _emphasise(self, marks: str, following: str) -> None:
        parts = [marks] if len(marks) < 3 else [marks[:2], marks[:1]]
        if all(part in self._open for part in parts) and not self._before.isspace():
            for part in parts:
                self._open.remove(part)
            self._tell(marks, MARK)
        elif self._can_open(marks, following):
            self._tell(marks, MARK)
            self._open.extend(parts)
        else:
            self._tell(marks)

    def _can_open(self, marks: str, following: str) -> bool:
        """Whether a row of marks leans on what follows; one mark within a word means itself."""
        is_within = self._before.isalnum() and following.isalnum()
        if following.isspace() or (is_within and (len(marks) == 1 or marks[0] == "_")):
            return False
        return following.isalnum() or not self._before.isalnum()
