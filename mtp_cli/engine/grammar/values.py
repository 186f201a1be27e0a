"""What is left of a JSON value that has begun, where the text before has it too.

Most values of an answer stand in the question: names, numbers, addresses. Once a value's first
letters are there, the word that begins so is looked up, and what follows is its likely rest. Knows
bytes alone, neither tokens nor grammars: what it proposes is a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A text goes on over one space and ends before punctuation that a space follows.
_REST_OF_TEXT = re.compile(rb"(?:[^\s\"\\\xff.,;:!?()\[\]]|[.,:?()\[\]](?=[^\s\"\\\xff])| (?=\w))*")
_REST_OF_NUMBER = re.compile(rb"\d*(?:\.\d+)?")
_IN_NUMBER = re.compile(rb"-?\d[\d.]*")
_CLEAR_END = re.compile(rb"[.,;:!?)\]]*(?:[\s\"\xff]|$)")
_CLOSES_TEXT, _CLOSE_NUMBER = (b'"',), (b",", b"}", b"]")
_N_READ = 1 << 16  # the last bytes of a text that are searched: more would cost as much as a row
_N_MOST = 64  # bytes of a rest


@dataclass(frozen=True)
class Rest:
    """text: what is left of the value, without what closes it; n_said: bytes of it that are there

    is_clear: whether the place it is copied from ends there, too
    closers: bytes that may end it, likeliest first
    """

    text: bytes
    n_said: int
    is_clear: bool
    closers: tuple[bytes, ...]


class Values:
    """Follows a prompt and a JSON answer to it."""

    def __init__(self) -> None:
        self._text = self._folded = b""
        self._said = bytearray()
        self._opened: int | None = None  # where in the answer a text's first byte is
        self._is_escaped = False
        self._cursor = 0  # behind the value found last: answers keep to their source's order

    def read(self, text: bytes) -> None:
        """The prompt."""
        self._text = text[-_N_READ:]
        self._folded, self._cursor = self._text.lower(), 0

    def say(self, text: bytes) -> None:
        """The answer goes on."""
        for byte in text:
            self._said.append(byte)
            if self._is_escaped:
                self._is_escaped = False
            elif byte == b"\\"[0]:
                self._is_escaped = self._opened is not None
            elif byte == b'"'[0]:
                self._opened = None if self._opened is not None else len(self._said)

    def rest(self) -> Rest | None:
        """Of the value under way; None where none is, or no word of the prompt begins so."""
        is_text = self._opened is not None
        begun = bytes(self._said[self._opened if is_text else self._number_from() :])
        is_begun = begun.strip() if is_text else _IN_NUMBER.fullmatch(begun)
        at = self._find(begun) if is_begun else None
        if at is None:
            return None
        pattern = _REST_OF_TEXT if is_text else _REST_OF_NUMBER
        end = at + len(begun)
        self._cursor = at
        found = pattern.match(self._text, end, end + _N_MOST)
        rest = found[0] if found else b""
        is_clear = _CLEAR_END.match(self._text, end + len(rest)) is not None
        return Rest(rest, len(begun), is_clear, _CLOSES_TEXT if is_text else _CLOSE_NUMBER)

    def _number_from(self) -> int:
        start = len(self._said)
        while start and chr(self._said[start - 1]) in "-.0123456789":
            start -= 1
        return start

    def _find(self, begun: bytes) -> int | None:
        """Where a word begins so: the next place behind the last value's, else the first."""
        for text, wanted in ((self._text, begun), (self._folded, begun.lower())):
            for start in (self._cursor, 0):
                at = _word(text, wanted, start)
                if at >= 0:
                    return at
        return None


def _word(text: bytes, wanted: bytes, start: int) -> int:
    """Where from `start` on a word begins so; -1 for nowhere."""
    at = text.find(wanted, start)
    while at > 0 and text[at - 1 : at].isalnum():
        at = text.find(wanted, at + 1)
    return at
