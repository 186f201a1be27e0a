"""Lets a model think before an answer that keeps to a grammar.

Owns where that answer begins: behind the mark that closes the reasoning, and the blanks after it.
Knows a grammar only as a constraint of the engine's.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mtp_cli.conversation.control import is_control, spelled, without_control
from mtp_cli.conversation.reasoning import Splitter
from mtp_cli.conversation.speech import heard
from mtp_cli.conversation.tokenizer import Tokenizer
from mtp_cli.errors import MtpError

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine.grammar.constraint import Constraint, Forced, Recalled
    from mtp_cli.engine.types import Floats, Ids

_BLANKS = ("\n", "\n\n")  # that models say between reasoning and answer


class Vocabulary(Tokenizer, Protocol):
    """What is asked of an engine here."""

    n_vocab: int


@dataclass(frozen=True)
class _Place:
    """Where an answer is before its constrained part.

    pending: bytes of a character that is not whole yet; n_blank: blanks after the last mark
    """

    splitter: Splitter
    pending: bytes = b""
    n_blank: int = 0


class ThoughtFirst:
    """A constraint that counts from where the answer's content begins; before it, all may be said.

    inner:    the content's
    splitter: has heard what was said, so that it knows whether the answer begins in reasoning
    """

    def __init__(self, inner: Constraint, tokenizer: Vocabulary, splitter: Splitter) -> None:
        self._inner = inner
        self._tokenizer = tokenizer
        self._place: _Place | None = _Place(splitter.again())
        self._openers = self._tokens(_opening(splitter))
        self._blanks = self._tokens(_BLANKS)
        self._spoiling: dict[str, list[int]] = {}

    @property
    def is_complete(self) -> bool:
        return self._place is None and self._inner.is_complete

    def forced(self) -> Forced:
        if self._place is None:
            return self._inner.forced()
        from mtp_cli.engine.grammar.constraint import Forced

        return Forced([], 0)

    def recalled(self) -> Recalled | None:
        return self._inner.recalled() if self._place is None else None

    def read(self, prompt: Sequence[int]) -> None:
        self._inner.read(prompt)

    def restrict(self, logits: Floats, drafted: Sequence[int], ids: Ids | None = None) -> None:
        place, n = self._along(drafted)
        if place is None:
            self._inner.restrict(logits, drafted[n:], ids)
        elif n < len(drafted):
            return
        elif place.splitter.is_at_content:
            kept = _places(self._besides(place), ids)
            as_was = logits[kept]
            self._inner.restrict(logits, (), ids)
            logits[kept] = as_was
        else:
            logits[_places(self._spoiling_at(place), ids)] = -np.inf

    def n_fitting(self, ids: Sequence[int]) -> int:
        place, n = self._along(ids)
        return n if place is not None else n + self._inner.n_fitting(ids[n:])

    def accept(self, ids: Sequence[int]) -> int:
        self._place, n = self._along(ids)
        if self._place is None:
            return n + self._inner.accept(ids[n:])
        if n < len(ids):
            raise MtpError("the model gives no token that the grammar allows")
        return n

    def _along(self, ids: Sequence[int]) -> tuple[_Place | None, int]:
        """Where the answer is after these ids, None for in its content, and how many it took to
        get there: those that are left are content's, or do not fit."""
        place = self._place
        for n, token in enumerate(ids):
            if place is None:
                return None, n
            if place.splitter.is_at_content and token not in self._besides(place):
                return None, n
            following = self._after(place, token)
            if following is None:
                return place, n
            place = following
        return place, len(ids)

    def _after(self, place: _Place, token: int) -> _Place | None:
        """None where the token would begin the content in its middle."""
        came = heard(self._tokenizer, token, marks_control=True)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        decoder.setstate((place.pending, 0))
        text = decoder.decode(came.text)
        splitter = place.splitter.with_more(text + came.shown_as)
        if not splitter.closers and splitter.text.strip() and not splitter.is_at_content:
            return None
        is_blank = place.splitter.is_at_content and token in self._blanks
        return _Place(splitter, decoder.getstate()[0], place.n_blank + 1 if is_blank else 0)

    def _besides(self, place: _Place) -> list[int]:
        """What may come where the content could begin: reasoning, and one blank after a mark."""
        has_blank = place.n_blank == 0 and place.splitter.is_after_mark
        return [*self._openers, *(self._blanks if has_blank else ())]

    def _spoiling_at(self, place: _Place) -> list[int]:
        """Tokens that would end the reasoning and say more in one: none of the content may be said
        before it counts. Only where the closing mark is spelled, and has begun."""
        held = place.splitter.held
        if not held or is_control(held):
            return []
        closers = tuple(close for close in place.splitter.closers if close.startswith(held[:1]))
        if held not in self._spoiling:
            texts = enumerate(map(self._text, range(self._tokenizer.n_vocab)))
            self._spoiling[held] = [t for t, text in texts if _says_more(held + text, closers)]
        return self._spoiling[held]

    def _text(self, token: int) -> str:
        return self._tokenizer.piece(token).decode(errors="replace")

    def _tokens(self, texts: Iterable[str]) -> list[int]:
        """Those texts that are one token."""
        read = (
            self._tokenizer.tokenize(text, add_special=False, parse_special=True) for text in texts
        )
        return sorted({ids[0] for ids in read if len(ids) == 1})


def _opening(splitter: Splitter) -> list[str]:
    """The marks that something else than the content begins with, as they are spelled."""
    marks = splitter.marks
    pairs = [open_ for open_, _close in (*marks.pairs, *marks.headers)]
    opening = [mark for mark in (*pairs, *marks.contents) if mark]
    return [spelled(mark) for mark in opening]


def _says_more(text: str, closers: Sequence[str]) -> bool:
    for close in closers:
        _before, found, after = text.partition(close)
        if found and without_control(after).strip():
            return True
    return False


def _places(tokens: Sequence[int], ids: Ids | None) -> Ids:
    """Where these tokens are in a row; ids: the target's id of each place, None for the same."""
    wanted = np.array(tokens, np.int32)
    if ids is None:
        return wanted
    at = np.minimum(ids.searchsorted(wanted), len(ids) - 1).astype(np.int32)
    found: Ids = at[ids[at] == wanted]
    return found
