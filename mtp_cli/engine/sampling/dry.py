"""llama.cpp's DRY penalty ("don't repeat yourself"), on one row of logits.

A token that would go on with a repetition loses the more, the longer that already is. Follows
`llama_sampler_init_dry`, and so github.com/oobabooga/text-generation-webui/pull/5677. Keeps no
text: the ids that a row follows come with it, drafted ones included.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mtp_cli.engine.types import Floats, Ids

Piece = Callable[[int], bytes]  # a token's bytes, control tokens by their spelling

_MOST_LOG = 88.7228391  # of a float: a longer repetition costs no more
_AS_IT_IS = contextlib.nullcontext()


@dataclass(frozen=True)
class Dry:
    """multiplier:     taken off a logit where a repetition of `allowed_length` tokens would go on
    base:           times that for each token more, at least 1
    allowed_length: repetitions of fewer tokens cost nothing
    last_n:         how many ids before a row count, the prompt's included
    breakers:       texts that end a repetition, by the token that holds them
    piece:          None where nothing is penalised
    """

    multiplier: float
    base: float
    allowed_length: int
    last_n: int
    breakers: tuple[bytes, ...]
    piece: Piece | None = None

    @functools.cached_property
    def n_before(self) -> int:
        """How many ids before a row matter; 0 where nothing is penalised."""
        is_off = self.multiplier == 0 or self.base < 1
        return 0 if is_off else max(0, self.last_n)

    def on(
        self, logits: Floats, before: Sequence[int], ids: Ids | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Inside, the row is a penalised one; after it, what it was. See `Penalties.on`."""
        return self._written(logits, before, ids) if self.n_before else _AS_IT_IS

    @contextlib.contextmanager
    def _written(self, logits: Floats, before: Sequence[int], ids: Ids | None) -> Iterator[None]:
        taken_off = {
            token: self._penalty(length)
            for token, length in self._repetitions([*before[-self.n_before :]]).items()
            if not self._breaks(token)
        }
        places = np.fromiter(taken_off, np.int32, len(taken_off))
        penalties = np.fromiter(taken_off.values(), np.float32, len(taken_off))
        if ids is not None:
            tokens, places = places, np.minimum(ids.searchsorted(places), len(ids) - 1)
            is_there = ids[places] == tokens
            places, penalties = places[is_there], penalties[is_there]
        as_was = logits[places]
        logits[places] = as_was - penalties
        try:
            yield
        finally:
            logits[places] = as_was

    def _penalty(self, length: int) -> float:
        exponent = length - self.allowed_length
        if self.base > 1.000001:
            exponent = min(exponent, int(_MOST_LOG / math.log(self.base)))
        return self.multiplier * float(self.base**exponent)

    def _repetitions(self, before: list[int]) -> dict[int, int]:
        """What would go on with a repetition, and how long that is by now, if long enough."""
        most = self._since_breaker(before)
        if len(before) <= self.allowed_length or most < self.allowed_length:
            return {}
        found: dict[int, int] = {}
        places = np.flatnonzero(np.array(before[:-1]) == before[-1]) if before else ()
        for place in map(int, places):
            length = self._common(before, place, most)
            following = before[place + 1]
            if length >= self.allowed_length and length > found.get(following, -1):
                found[following] = length
        if self.allowed_length == 0:  # every token before goes on with a repetition of none
            for token in before[1:]:
                found.setdefault(token, 0)
        return found

    def _common(self, before: Sequence[int], place: int, most: int) -> int:
        """How many ids up to a place are those that the text ends with."""
        length = 0
        while length < min(most, place + 1) and before[place - length] == before[-1 - length]:
            length += 1
        return length

    def _since_breaker(self, before: Sequence[int]) -> int:
        """How many of the last ids come after the token in which the last breaker ends."""
        longest = max(map(len, self.breakers), default=0)
        text, ends = b"", list[int]()  # the text of the last ids, and where each ends, backwards
        for n, token in enumerate(reversed(before)):
            text = self._piece(token) + text
            ends.append(len(text))
            # A breaker that begins in this token, whatever it ends in
            head = text[: ends[-1] - (ends[-2] if n else 0) + longest - 1]
            at = max((head.rfind(b) + len(b) for b in self.breakers if b in head), default=None)
            if at is not None:
                behind = len(text) - at  # bytes after it
                return sum(end <= behind for end in ends)
        return len(before)

    def _breaks(self, token: int) -> bool:
        piece = self._piece(token)
        return any(breaker in piece for breaker in self.breakers)

    def _piece(self, token: int) -> bytes:
        return b"" if self.piece is None else self.piece(token)
