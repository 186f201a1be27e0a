"""Which lines of a text are code between fences, line by line (CommonMark 0.31, section 4.5).

An opening fence may be indented by any amount, as models do it inside lists.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"\s*(`{3,}|~{3,})(.*)", re.DOTALL)


class Fences:
    """info: what stands behind the opening fence of the code under way, as `python`."""

    def __init__(self) -> None:
        self._opened_by = ""
        self.info = ""

    @property
    def is_open(self) -> bool:
        """Whether the next line is code, or the fence that ends it."""
        return bool(self._opened_by)

    def end_line(self, line: str) -> bool:
        """Take in a whole line, without its newline; whether it is a fence."""
        match = _FENCE.fullmatch(line)
        if match is None:
            return False
        fence, info = match[1], match[2].strip()
        if self._opened_by:
            if info or not fence.startswith(self._opened_by):
                return False
            self._opened_by = ""
            return True
        if fence[0] == "`" and "`" in info:  # code within a line
            return False
        self._opened_by, self.info = fence, info
        return True


def code_blocks(text: str) -> list[str]:
    """The code between fences, without them; the last may have no end yet."""
    fences, blocks = Fences(), list[str]()
    for line in text.split("\n"):
        was_open = fences.is_open
        if fences.end_line(line):
            blocks += [] if was_open else [""]
        elif was_open:
            blocks[-1] += line + "\n"
    return blocks
