"""What a conversation needs of a tokeniser, and where special tokens are spelled in a text.

Knows nothing of prompts. A *special* token is one whose spelling llama.cpp looks for before it
tokenises anything: control, unknown and user-defined ones.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from mtp_cli.engine.types import TokenKind

_SPACE = " \t\n\v\f\r"  # what C's isspace knows


class Tokenizer(Protocol):
    """The engine's part that reads text; `mtp_cli.engine.Engine` says what each is."""

    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def first_token(self) -> int | None: ...
    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...
    def piece(self, token: int, *, special: bool = False) -> bytes: ...
    def special_text(self, name: Literal["bos", "eos"]) -> str: ...
    def is_eog(self, token: int) -> bool: ...
    def kind(self, token: int) -> TokenKind: ...
    def is_matched(self, token: int) -> bool: ...


@dataclass(frozen=True)
class Spelled:
    """A special token in a text: its characters, and the white space around that goes with it."""

    token: int
    start: int
    end: int


class Speller:
    """Finds what special tokens a text spells."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.spelling = functools.cache(self._spelling)
        self._strips = functools.cache(self._find_strips)

    def tokens(self, text: str) -> set[int]:
        """The special tokens in `text`."""
        if not text:
            return set()
        parsed = self._tokenizer.tokenize(text, add_special=False, parse_special=True)
        found = set(filter(self._tokenizer.is_matched, set(parsed)))
        return {token for token in found if self.spelling(token) in text}

    def find(self, text: str) -> list[Spelled]:
        """The special tokens in `text`, in order, where llama.cpp finds them: longest first."""
        longest_first = sorted(
            self.tokens(text), key=lambda token: len(self.spelling(token).encode()), reverse=True
        )
        found: list[Spelled] = []
        gaps = [(0, len(text))]
        for token in longest_first:
            split = [self._split(token, text, *gap) for gap in gaps]
            found += itertools.chain.from_iterable(places for places, _gaps in split)
            gaps = list(itertools.chain.from_iterable(gaps for _places, gaps in split))
        return sorted(found, key=lambda place: place.start)

    def _split(
        self, token: int, text: str, start: int, end: int
    ) -> tuple[list[Spelled], list[tuple[int, int]]]:
        """Where `token` lies in a gap between other tokens, and the gaps that are left."""
        spelling = self.spelling(token)
        strips_left, strips_right = self._strips(token)
        places, gaps = [], []
        while (at := text.find(spelling, start, end)) >= 0:
            left, right = at, at + len(spelling)
            while strips_left and left > start and text[left - 1] in _SPACE:
                left -= 1
            while strips_right and right < end and text[right] in _SPACE:
                right += 1
            places.append(Spelled(token, left, right))
            gaps.append((start, left))
            start = right
        return places, [*gaps, (start, end)]

    def _spelling(self, token: int) -> str:
        return self._tokenizer.piece(token, special=True).decode(errors="replace")

    def _find_strips(self, token: int) -> tuple[bool, bool]:
        """Whether the token takes the white space before it along, and that after it."""
        bare, text = self.spelling(token), "x"
        left = self._ids(f"{text}{_SPACE}{bare}") == self._ids(f"{text}{bare}")
        right = self._ids(f"{bare}{_SPACE}{text}") == self._ids(f"{bare}{text}")
        return left, right

    def _ids(self, text: str) -> Sequence[int]:
        return self._tokenizer.tokenize(text, add_special=False, parse_special=True)
