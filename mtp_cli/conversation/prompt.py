"""From a rendered prompt to its ids.

Owns what is known of the newest prompt as ids, and the guard around text that spells control
tokens. Knows nothing of turns, and of the engine only its tokeniser.

Two things need care. *Answers keep the ids they were generated with*: text that was answered is
never tokenised again, since a tokeniser may split it otherwise, and the cache would be lost from
there on. *Text is not control*: a message that spells a control token (`<|im_end|>`) reaches the
model as those characters, so that no text, quoted or piped in, can end its own turn.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from mtp_cli.conversation.template import ChatTemplate, Message

# Noncharacters, which no text may contain, around text that spells a control token.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_LITERAL = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")
_UNMARK = {ord(_OPEN): None, ord(_CLOSE): None}
_REPLACE_MARKS = {ord(_OPEN): "\ufffd", ord(_CLOSE): "\ufffd"}


class Tokenizer(Protocol):
    """What a prompt needs of an engine."""

    @property
    def metadata(self) -> Mapping[str, str]: ...
    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...
    def piece(self, token: int, *, special: bool = False) -> bytes: ...
    def special_text(self, name: Literal["bos", "eos"]) -> str: ...


class _KnownText:
    """The newest prompt and answer as text and as ids, and the cuts where the two correspond."""

    def __init__(self) -> None:
        self._text = ""
        self._ids: list[int] = []
        self._cuts = [(0, 0)]

    def extend(self, text: str, ids: Sequence[int]) -> None:
        """Take up a longer text that begins with the known one; it ends in a new cut."""
        self._text, self._ids = text, list(ids)
        self._cuts.append((len(text), len(ids)))

    def cut_to_prefix_of(self, text: str) -> tuple[int, list[int]]:
        """Forget what `text` does not begin with; how much of it is known (characters, ids)."""
        self._cuts = [cut for cut in self._cuts if text.startswith(self._text[: cut[0]])]
        n_chars, n_ids = self._cuts[-1]
        self._text, self._ids = self._text[:n_chars], self._ids[:n_ids]
        return n_chars, list(self._ids)


class PromptReader:
    """Rendered prompts of one conversation as ids; what was read or answered keeps its ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bos = tokenizer.special_text("bos")
        self._known = _KnownText()
        self._guarded: dict[str, str] = {}

    def extend(self, text: str, ids: Sequence[int]) -> None:
        """Take up a longer text that begins with the known one, and its ids."""
        self._known.extend(text, ids)

    def guard(self, text: str) -> str:
        """Mark what spells control tokens in `text`, so that `read` takes it literally."""
        if text not in self._guarded:  # a message comes by again with every turn
            self._guarded[text] = self._mark_control(text.translate(_REPLACE_MARKS))
        return self._guarded[text]

    def _mark_control(self, text: str) -> str:
        spellings = self._control_spellings(text)
        if not spellings:
            return text
        longest_first = sorted(map(re.escape, spellings), key=len, reverse=True)
        parts = re.split(f"({'|'.join(longest_first)})", text)
        # Cutting one spelling out may leave another whole, so what lies between is looked at again.
        return "".join(
            f"{_OPEN}{part}{_CLOSE}" if odd else self._mark_control(part)
            for part, odd in zip(parts, itertools.cycle((False, True)), strict=False)
        )

    def _control_spellings(self, text: str) -> set[str]:
        if not text:
            return set()
        parsed = self._tokenizer.tokenize(text, add_special=False, parse_special=True)
        if parsed == self._tokenizer.tokenize(text, add_special=False, parse_special=False):
            return set()
        control = {token for token in parsed if not self._tokenizer.piece(token)}
        spelled = {
            self._tokenizer.piece(token, special=True).decode(errors="replace") for token in control
        }
        return {spelling for spelling in spelled if spelling}

    def read(self, text: str) -> list[int]:
        """The ids of a rendered prompt; known ids as far as a cut in the known text allows."""
        n_chars, ids = self._known.cut_to_prefix_of(text)
        # As llama.cpp does: BOS comes from the template or else, if wanted, from the tokeniser.
        add_special = n_chars == 0 and not (self._bos and text.startswith(self._bos))
        for i, part in enumerate(_LITERAL.split(text[n_chars:])):
            ids += self._tokenizer.tokenize(
                part.translate(_UNMARK),
                add_special=add_special and i == 0,
                parse_special=i % 2 == 0,
            )
        return ids


def prompt_ids(engine: Tokenizer, text: str) -> list[int]:
    """One user turn as the chat would put it, alone; as it is where there is no template."""
    source = engine.metadata.get("tokenizer.chat_template")
    if source is None:
        return engine.tokenize(text, add_special=True, parse_special=True)
    template = ChatTemplate(source, bos=engine.special_text("bos"), eos=engine.special_text("eos"))
    rendered = template.render([Message(role="user", content=text)])
    return engine.tokenize(rendered, add_special=False, parse_special=True)
