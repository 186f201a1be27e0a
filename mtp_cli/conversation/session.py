"""A conversation: messages in, prompt ids to the engine, ids back to text.

Owns the messages, and the bookkeeping that lets the engine reuse its cache between turns. Knows
nothing of terminals, and of the engine only what the protocols here say.

Two things need care. *Answers keep the ids they were generated with*: text that was answered is
never tokenised again, since a tokeniser may split it otherwise, and the cache would be lost from
there on. *Text is not control*: a message that spells a control token (`<|im_end|>`) reaches the
model as those characters, so that no text, quoted or piped in, can end its own turn.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.errors import MtpError

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine import Sampling, Stats

Depth = int | Literal["auto"]
FinishReason = Literal["stop", "length", "interrupted"]

# Noncharacters, which no text may contain, around text that spells a control token.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_LITERAL = re.compile(f"{_OPEN}([^{_OPEN}{_CLOSE}]*){_CLOSE}")
_UNMARK = {ord(_OPEN): None, ord(_CLOSE): None}
_REPLACE_MARKS = {ord(_OPEN): "\ufffd", ord(_CLOSE): "\ufffd"}


class Generation(Protocol):
    """An answer under way: each item is the ids that one round made final."""

    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def finish_reason(self) -> FinishReason: ...
    @property
    def stats(self) -> Stats: ...
    def __iter__(self) -> Iterator[Sequence[int]]: ...
    def stop(self) -> None: ...


class Engine(Protocol):
    """What a conversation needs of an engine."""

    @property
    def n_ctx(self) -> int: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...
    def piece(self, token: int, *, special: bool = False) -> bytes: ...
    def is_eog(self, token: int) -> bool: ...
    def special_text(self, name: Literal["bos", "eos"]) -> str: ...
    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        max_tokens: int,
        depth: Depth,
        exact: bool,
    ) -> Generation: ...


@dataclass(frozen=True)
class Settings:
    """How to answer.

    max_tokens: None for as many as the context has room for
    exact:      plain decoding's very answer, on every format (see `Engine.generate`)
    """

    sampling: Sampling
    max_tokens: int | None = None
    depth: Depth = "auto"
    exact: bool = False


class Answer:
    """An answer as it comes: iterate over its text, in whole characters.

    However the iteration ends, `text` is what was said, and the session has taken it up.
    """

    def __init__(
        self,
        generation: Generation,
        piece: Callable[[int], bytes],
        on_end: Callable[[Answer], None],
    ) -> None:
        self._generation = generation
        self._piece = piece
        self._on_end = on_end
        self.text = ""

    def __iter__(self) -> Generator[str, None, None]:
        # A character cut off at the very end stays in the decoder: half of it is never shown.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        try:
            for ids in self._generation:
                chunk = decoder.decode(b"".join(map(self._piece, ids)))
                self.text += chunk
                if chunk:
                    yield chunk
        finally:
            self._on_end(self)

    def stop(self) -> None:
        """Let the round under way be the last; safe to call from a signal handler."""
        self._generation.stop()

    @property
    def tokens(self) -> list[int]:
        return list(self._generation.tokens)

    @property
    def finish_reason(self) -> FinishReason:
        return self._generation.finish_reason

    @property
    def stats(self) -> Stats:
        return self._generation.stats


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


class Session:
    """One conversation with one engine.

    messages: user and assistant turns, alternating; the system message is `system`.
    raw: no chat template, by choice or because the model has none; the texts follow one another
         as they are, and may spell control tokens.
    """

    def __init__(self, engine: Engine, *, system: str | None = None, raw: bool = False) -> None:
        self._engine = engine
        source = engine.metadata.get("tokenizer.chat_template")
        self.raw = raw or source is None
        self.system = system
        self.messages: list[Message] = []
        self._bos = engine.special_text("bos")
        self._template = None
        if source is not None and not raw:
            self._template = ChatTemplate(source, bos=self._bos, eos=engine.special_text("eos"))
        self._known = _KnownText()
        self._guarded: dict[str, str] = {}

    @property
    def system(self) -> str | None:
        """The system prompt; it can change at any time, but a raw conversation has none."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        if self.raw and text is not None:
            raise MtpError("a system prompt needs a chat template, and here is none")
        self._system = text

    def ask(self, text: str, settings: Settings) -> Answer:
        """Answer `text`; raises MtpError, with nothing changed, when it cannot."""
        return self._answer(self.messages, text, settings)

    def regenerate(self, settings: Settings) -> Answer:
        """Answer the last user message once more; the old answer stays until there is a new one."""
        if not self.messages:
            raise MtpError("there is no answer to make again")
        return self._answer(self.messages[:-2], self.messages[-2]["content"], settings)

    def undo(self) -> str | None:
        """Take back the last exchange; its user message, or None when there is none."""
        if not self.messages:
            return None
        user, _assistant = self.messages[-2:]
        del self.messages[-2:]
        return user["content"]

    def _answer(self, before: Sequence[Message], text: str, settings: Settings) -> Answer:
        asked = [*before, Message(role="user", content=text)]
        prompt_text = self._render(asked)
        prompt = self._tokenize(prompt_text)
        room = self._engine.n_ctx - len(prompt)
        if room < 1:
            raise MtpError(
                f"the prompt has {len(prompt)} tokens, and a context of {self._engine.n_ctx} "
                "has no room left for an answer: shorten it or raise --ctx"
            )
        max_tokens = room if settings.max_tokens is None else min(room, settings.max_tokens)
        generation = self._engine.generate(
            prompt,
            settings.sampling,
            max_tokens=max_tokens,
            depth=settings.depth,
            exact=settings.exact,
        )

        def take_up(answer: Answer) -> None:
            if not answer.text and answer.finish_reason == "interrupted":
                return
            self.messages = [*asked, Message(role="assistant", content=answer.text)]
            said = [token for token in answer.tokens if not self._engine.is_eog(token)]
            self._known.extend(prompt_text + self._guard(answer.text), [*prompt, *said])

        return Answer(generation, self._said, take_up)

    def _said(self, token: int) -> bytes:
        """What a token adds to an answer: nothing if it ends one."""
        return b"" if self._engine.is_eog(token) else self._engine.piece(token)

    def _render(self, messages: Sequence[Message]) -> str:
        if self._template is None:
            return "".join(message["content"] for message in messages)
        if self.system is not None:
            messages = [Message(role="system", content=self.system), *messages]
        return self._template.render(
            [Message(role=m["role"], content=self._guard(m["content"])) for m in messages]
        )

    def _guard(self, text: str) -> str:
        """Mark what spells control tokens in `text`, so that `_tokenize` takes it literally."""
        if self._template is None:
            return text
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
        parsed = self._engine.tokenize(text, add_special=False, parse_special=True)
        if parsed == self._engine.tokenize(text, add_special=False, parse_special=False):
            return set()
        control = {token for token in parsed if not self._engine.piece(token)}
        spelled = {
            self._engine.piece(token, special=True).decode(errors="replace") for token in control
        }
        return {spelling for spelling in spelled if spelling}

    def _tokenize(self, text: str) -> list[int]:
        """The ids of a rendered prompt; known ids as far as a cut in the known text allows."""
        n_chars, ids = self._known.cut_to_prefix_of(text)
        # As llama.cpp does: BOS comes from the template or else, if wanted, from the tokeniser.
        add_special = n_chars == 0 and not (self._bos and text.startswith(self._bos))
        for i, part in enumerate(_LITERAL.split(text[n_chars:])):
            ids += self._engine.tokenize(
                part.translate(_UNMARK),
                add_special=add_special and i == 0,
                parse_special=i % 2 == 0,
            )
        return ids


def prompt_ids(engine: Engine, text: str) -> list[int]:
    """One user turn as the chat would put it, alone; as it is where there is no template."""
    source = engine.metadata.get("tokenizer.chat_template")
    if source is None:
        return engine.tokenize(text, add_special=True, parse_special=True)
    template = ChatTemplate(source, bos=engine.special_text("bos"), eos=engine.special_text("eos"))
    rendered = template.render([Message(role="user", content=text)])
    return engine.tokenize(rendered, add_special=False, parse_special=True)
