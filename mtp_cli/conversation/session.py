"""A conversation: messages in, prompt ids to the engine, ids back to text.

Owns the messages, and the bookkeeping that lets the engine reuse its cache between turns. Knows
nothing of terminals, and of the engine only what the protocols here say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from mtp_cli.conversation.answer import Answer, Generation
from mtp_cli.conversation.prompt import PromptReader, chat_format
from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.conversation.tokenizer import Tokenizer
from mtp_cli.errors import MtpError

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine import Sampling

Depth = int | Literal["auto"]


class Engine(Tokenizer, Protocol):
    """What a conversation needs of an engine."""

    @property
    def n_ctx(self) -> int: ...
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
        self._template = None
        self._prompts = PromptReader(engine, None)
        if source is not None and not raw:
            self._template = ChatTemplate(
                source, bos=engine.special_text("bos"), eos=engine.special_text("eos")
            )
            self._prompts = PromptReader(engine, chat_format(self._template, source))

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
        prompt = self._prompts.read(prompt_text)
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
            self._prompts.extend(prompt_text + self._prompts.guard(answer.text), [*prompt, *said])

        return Answer(generation, self._said, take_up)

    def _said(self, token: int) -> bytes:
        """What a token adds to an answer: nothing if it ends one."""
        return b"" if self._engine.is_eog(token) else self._engine.piece(token)

    def _render(self, messages: Sequence[Message]) -> str:
        if self._template is None:
            return "".join(self._prompts.guard(message["content"]) for message in messages)
        if self.system is not None:
            messages = [Message(role="system", content=self.system), *messages]
        return self._template.render(
            [Message(role=m["role"], content=self._prompts.guard(m["content"])) for m in messages]
        )
