"""From a rendered prompt to its ids.

Owns what is known of the newest prompt as ids, and the guard around text that spells tokens of the
chat format. Knows nothing of turns, and of the engine only its tokeniser.

Three things need care. *Answers keep the ids they were generated with*: text that was answered is
never tokenised again, since a tokeniser may split it otherwise, and the cache would be lost from
there on. *Text is not control*: a message that spells a control token (`<|im_end|>`) reaches the
model as those characters, so that no text, quoted or piped in, can end its own turn. *A cut does
not show*: the ids are those of the whole text read at once, with the BOS that the file asks for and
nothing after it, whatever else llama.cpp adds to a text.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Sequence

from mtp_cli.conversation.choice import usual_template
from mtp_cli.conversation.exact import Known
from mtp_cli.conversation.forms import FittedTemplate
from mtp_cli.conversation.plain import PlainText
from mtp_cli.conversation.template import ChatTemplate, Message, Role
from mtp_cli.conversation.tokenizer import Speller, Tokenizer
from mtp_cli.errors import MtpError

# Noncharacters, which no text may contain: around text that is to be read literally, and inside a
# word that the template is not to find.
_OPEN, _CLOSE, _BREAK = "\ufdd0", "\ufdd1", "\ufdd2"
_LITERAL = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")
_UNMARK = dict.fromkeys(map(ord, (_OPEN, _CLOSE, _BREAK)))
_REPLACE_MARKS = dict.fromkeys(_UNMARK, "\ufffd")


class _KnownText:
    """The newest prompt and its answer as text and as ids, cut where answers end."""

    def __init__(self) -> None:
        self._text = ""
        self._ids: list[int] = []
        self._cuts = [(0, 0)]

    def extend(self, text: str, ids: Sequence[int]) -> None:
        """Take up a text that ends in a new cut; what it does not begin with is forgotten."""
        self._cuts = [*self._shared_with(text), (len(text), len(ids))]
        self._text, self._ids = text, list(ids)

    def prefix_of(self, text: str) -> tuple[int, list[int]]:
        """How much of `text` is known: characters, and their ids."""
        n_chars, n_ids = self._shared_with(text)[-1]
        return n_chars, self._ids[:n_ids]

    def _shared_with(self, text: str) -> list[tuple[int, int]]:
        return [cut for cut in self._cuts if text.startswith(self._text[: cut[0]])]

    def kept(self) -> Known:
        return Known(self._text, self._ids, self._cuts)

    def resume(self, known: Known) -> None:
        self._text, self._ids, self._cuts = known.text, list(known.ids), list(known.cuts)


def quoted(text: str, marks: Iterable[str]) -> str:
    """`text` in which a template finds none of `marks`; a `PromptReader` reads it as it was."""
    for mark in marks:
        text = text.replace(mark, mark[:1] + _BREAK + mark[1:])
    return text


class PromptReader:
    """Rendered prompts of one conversation as ids; what was answered keeps its ids.

    chat_format: see `PlainText`; None where texts may spell control tokens
    """

    def __init__(self, tokenizer: Tokenizer, chat_format: str | None) -> None:
        self._tokenizer = tokenizer
        self._is_guarded = chat_format is not None
        self._speller = Speller(tokenizer)
        self._plain = PlainText(tokenizer, chat_format or "")
        self._bos = tokenizer.special_text("bos")
        self._known = _KnownText()
        self._guarded: dict[str, str] = {}

    @property
    def margin(self) -> str:
        """What the tokenizer puts in front of a text's first word."""
        return self._plain.margin

    def extend(self, text: str, ids: Sequence[int]) -> None:
        """Take up a prompt with its answer, and the ids of both."""
        self._known.extend(text, ids)

    def kept(self) -> Known:
        """What is known of the newest prompt and its answer."""
        return self._known.kept()

    def resume(self, known: Known) -> None:
        """Know what a reader of another run knew."""
        self._known.resume(known)

    def guard(self, text: str) -> str:
        """Mark parts that llama.cpp would take for control, for `read` to take literally."""
        if text not in self._guarded:  # a message comes by again with every turn
            unmarked = text.translate(_REPLACE_MARKS)
            self._guarded[text] = self._mark_control(unmarked) if self._is_guarded else unmarked
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
        """What in `text` llama.cpp would read as special, and the file or the format does not."""
        tokens = self._speller.tokens(text)
        is_text = {token for token in tokens if self._tokenizer.kind(token) == "text"}
        control = set(filter(self._plain.is_control, tokens))
        return {self._speller.spelling(token) for token in control | is_text}

    def read(self, text: str) -> list[int]:
        """The ids of a rendered prompt; known ids as far as an answer's end in the known text."""
        n_chars, ids = self._known.prefix_of(text)
        if not n_chars and self._tokenizer.first_token is not None and not self._has_bos(text):
            ids.append(self._tokenizer.first_token)
        return ids + self._read(text[n_chars:], continues=n_chars > 0)

    def read_on(self, text: str) -> list[int]:
        """The ids of a rendered text that goes on from another, after what was answered."""
        return self._read(text, continues=True)

    def continued(self, text: str) -> list[int]:
        """The ids of plain text that goes on from another."""
        return self._plain.ids(text, continues=True)

    def without_control(self, text: str) -> str:
        """`text` without the control tokens that it spells."""
        for place in reversed(self._speller.find(text)):
            if self._plain.is_control(place.token):
                text = text[: place.start] + text[place.end :]
        return text

    def _has_bos(self, text: str) -> bool:
        """Whether the template gave BOS, as the first thing that it says."""
        return bool(self._bos) and text.lstrip().startswith(self._bos)

    def _read(self, text: str, *, continues: bool) -> list[int]:
        """Ids of `text`, of which only what lies outside the marks may be special tokens.

        Between special tokens, text is tokenised whole: marks are no borders of it.
        """
        ids: list[int] = []
        fragment = ""
        for i, part in enumerate(_LITERAL.split(text)):
            part = part.translate(_UNMARK)
            special = self._speller.find(part) if i % 2 == 0 else []
            if not special:
                fragment += part
                continue
            first, last = special[0].start, special[-1].end
            ids += self._plain.ids(fragment + part[:first], continues=continues)
            ids += self._special(part[first:last])
            fragment, continues = part[last:], self._plain.is_spaced_once
        return ids + self._plain.ids(fragment, continues=continues)

    def _special(self, text: str) -> list[int]:
        """The ids of what begins and ends with special tokens."""
        return self._tokenizer.tokenize(text, add_special=False, parse_special=True)


def chat_format(render: Callable[[Sequence[Message]], str], source: str) -> str:
    """What the format of a chat consists of: the template's text, and what it says around texts."""
    roles: list[list[Role]] = [["system", "user", "assistant", "user"], ["user"]]
    for tried in roles:
        with contextlib.suppress(MtpError):
            return source + render([Message(role=role, content="x") for role in tried])
    return source


def prompt_ids(engine: Tokenizer, text: str, *, system: str | None = None) -> list[int]:
    """One user turn as the chat would put it, alone; as it is where there is no template.

    system: as in `Session`
    """
    source = usual_template(engine.metadata)
    if source is None:
        return PromptReader(engine, None).read(text)
    template = FittedTemplate(
        ChatTemplate(source, bos=engine.special_text("bos"), eos=engine.special_text("eos"))
    )

    def render(messages: Sequence[Message]) -> str:
        return template.render(messages, {})

    reader = PromptReader(engine, chat_format(render, source))
    asked = [] if system is None else [Message(role="system", content=reader.guard(system))]
    return reader.read(render([*asked, Message(role="user", content=reader.guard(text))]))
