"""Grammars put together of texts, control tokens and JSON, as llguidance has them.

Owns how each is written. Knows no chat template and no syntax of calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llguidance import LLMatcher

from mtp_cli.engine.grammar.source import LAYOUT, Grammar, checked
from mtp_cli.engine.grammar.vocabulary import Tokenizer, is_text


class Parts:
    """Makes expressions, each a text in llguidance's form, and a grammar of them.

    tokenizer: tells which marks in a text are tokens of their own, that no text spells
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rules: list[str] = []

    def text(self, text: str) -> str:
        """Exactly this, up to where a token ends an answer."""
        return " ".join([*self._pieces(text)]) or '""'

    def _pieces(self, text: str) -> Iterator[str]:
        for token in self._tokenizer.tokenize(text, add_special=False, parse_special=True):
            if self._tokenizer.is_eog(token):
                text = text.partition(self._spelling(token))[0]
                break
            if not is_text(self._tokenizer, token):
                before, _mark, text = text.partition(self._spelling(token))
                yield from _quoted(before)
                yield f"<[{token}]>"
        yield from _quoted(text)

    def _spelling(self, token: int) -> str:
        return self._tokenizer.piece(token, special=True).decode(errors="replace")

    def json(self, schema: Mapping[str, Any]) -> str:
        """JSON that is valid under a schema, on one line."""
        return "%json " + json.dumps({**schema, "x-guidance": LAYOUT})

    def until(self, closer: str, never: Sequence[str]) -> str:
        """Any text, and a closer after it; it has in it neither that nor what never may come."""
        closing = self.text(closer)
        name = f"ANY_{len(self._rules)}"
        if "<[" in closing:  # a token, which is no part of any text
            self._rules.append(f"{name}: /(?s:.*)/")
            return f"{name} {closing}"
        wrong = "|".join(_escaped(text) for text in (closer, *never))
        self._rules.append(f"{name}: (/(?s:.*)/ & ~/(?s:.*({wrong}).*)/) {closing}")
        return name

    def one_of(self, choices: Sequence[str]) -> str:
        return f"({' | '.join(choices)})"

    def identifier(self) -> str:
        """A name of nine letters and digits."""
        return "/[a-zA-Z0-9]{9}/"

    def grammar(self, start: str, kind: str) -> Grammar:
        """The texts of an expression; MtpError where llguidance cannot keep to it.

        kind: for people
        """
        lark = "\n".join([f"start: {start}", *self._rules]) + "\n"
        found = Grammar(LLMatcher.grammar_from_lark(lark), kind)
        return checked(found, f"{kind} cannot be kept to")


def _quoted(text: str) -> Iterator[str]:
    if text:
        yield json.dumps(text, ensure_ascii=False)


def _escaped(text: str) -> str:
    """As part of a pattern between slashes."""
    found = re.escape(text).replace("/", "\\/")
    return found.replace("\\\n", "\\n").replace("\\ ", " ")
