"""A model's vocabulary as llguidance wants it, and matchers over it.

Owns which ids can be part of a text at all: control tokens spell none.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from mtp_cli.engine.grammar.source import Grammar
from mtp_cli.engine.types import TokenKind
from mtp_cli.errors import MtpError

_SPECIAL = b"\xff"  # before the name of a token that is no text: llguidance's own sign
_NEIGHBOURS = ("\n", "x")  # texts that a tokenizer may be made to begin with
_NOTHING = "NoExtension"  # how llguidance begins what it says of a grammar without a text
_N_KEPT = 8  # grammars of one vocabulary that stay compiled


class Tokenizer(Protocol):
    """The part of an engine that is asked here."""

    n_vocab: int

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...
    def piece(self, token: int, *, special: bool = False) -> bytes: ...
    def is_eog(self, token: int) -> bool: ...
    def kind(self, token: int) -> TokenKind: ...


class Vocabulary:
    """pieces: each id's bytes; those of no text begin with a byte that no text has."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.pieces = [_piece(tokenizer, token) for token in range(tokenizer.n_vocab)]
        self.ends = [*filter(tokenizer.is_eog, range(tokenizer.n_vocab))]
        if not self.ends:
            raise MtpError("the model's vocabulary has no token that ends an answer")
        wrapped = TokenizerWrapper(_Read(self.ends[0], self.pieces, self.tokenize))
        self._compiled = LLTokenizer(
            wrapped,
            n_vocab=tokenizer.n_vocab,
            eos_token=self.ends,
            slices=LLTokenizer.json_slices(),
        )
        self._prototype = functools.lru_cache(_N_KEPT)(self._compile)

    def matcher(self, grammar: Grammar) -> LLMatcher:
        """A new one, before the first id."""
        return self._prototype(grammar).deep_copy()

    def _compile(self, grammar: Grammar) -> LLMatcher:
        matcher = LLMatcher(self._compiled, grammar.text, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            reason = matcher.get_error().strip().partition("\n")[0]
            if reason.startswith(_NOTHING):
                raise MtpError(f"no text that this model can write fits the {grammar.kind}")
            raise MtpError(f"the {grammar.kind} is refused: {reason}")
        return matcher

    def tokenize(self, text: str) -> list[int]:
        """Ids whose bytes are those of `text`, which goes on from another."""
        for neighbour in ("", *_NEIGHBOURS):
            before, ids = self._literal(neighbour), self._literal(neighbour + text)
            ids = ids[len(before) :] if ids[: len(before)] == before else []
            if self.spelled(ids) == text.encode():
                return ids
        return self.longest(text.encode())

    def longest(self, text: bytes) -> list[int]:
        """The same by always taking the longest token."""
        ids = []
        while text:
            fitting = (self._ids.get(text[:n]) for n in range(self._n_longest, 0, -1))
            token = next((token for token in fitting if token is not None), None)
            if token is None:
                return []
            ids.append(token)
            text = text[len(self.pieces[token]) :]
        return ids

    @functools.cached_property
    def _ids(self) -> dict[bytes, int]:
        return {piece: token for token, piece in enumerate(self.pieces)}

    @functools.cached_property
    def _n_longest(self) -> int:
        return max(map(len, self.pieces))

    def _literal(self, text: str) -> list[int]:
        return self.tokenizer.tokenize(text, add_special=False, parse_special=False)

    def spelled(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.pieces[token] for token in ids)


class _Read:
    """What llguidance reads of a tokenizer."""

    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, end: int, pieces: Sequence[bytes], tokenize: object) -> None:
        self.eos_token_id = end
        self.tokens = pieces
        self._tokenize = tokenize

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):  # so it is told that bytes are not taken
            raise TypeError("text is wanted")
        ids: list[int] = self._tokenize(text)  # type: ignore[operator]
        return ids


def _piece(tokenizer: Tokenizer, token: int) -> bytes:
    if is_text(tokenizer, token):
        return tokenizer.piece(token)
    return _SPECIAL + tokenizer.piece(token, special=True)


def is_text(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a text can have it in it."""
    kind, piece = tokenizer.kind(token), tokenizer.piece(token)
    is_mark = kind == "user-defined" and piece[:1] == b"<" and piece[-1:] == b">"
    return bool(piece) and kind != "control" and not is_mark and not tokenizer.is_eog(token)
