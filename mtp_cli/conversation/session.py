"""A conversation: messages in, prompt ids to the engine, ids back to text.

Owns the messages, and how many of them the context has room for; `Wording` puts them to the model.
Knows nothing of terminals, and of the engine only what the protocols here say.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mtp_cli.conversation.answer import Answer
from mtp_cli.conversation.begun import Begun, as_newest, resumed
from mtp_cli.conversation.choice import usual_template
from mtp_cli.conversation.control import without_control
from mtp_cli.conversation.exact import Exact
from mtp_cli.conversation.reasoning import Splitter, listening
from mtp_cli.conversation.speech import UNENDED, Ending, Generation, Speech
from mtp_cli.conversation.template import Message
from mtp_cli.conversation.tokenizer import Tokenizer
from mtp_cli.conversation.wording import Wording
from mtp_cli.errors import MtpError, advised

if TYPE_CHECKING:  # the engine package loads llama.cpp, which `--help` need not wait for
    from mtp_cli.engine import Sampling
    from mtp_cli.engine.grammar.constraint import Constraint
    from mtp_cli.engine.grammar.source import Grammar

Depth = int | Literal["auto"]

# Of the context: a prompt that leaves less for its answer loses its oldest exchanges, ...
_ROOM_FOR_ANSWER = 1 / 4
# ... and not one by one, since each time all that stays is read again: until it has only this.
_KEPT_WHEN_FULL = 1 / 2


class Engine(Tokenizer, Protocol):
    """What a conversation needs of an engine."""

    n_vocab: int

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
        constraint: Constraint | None,
    ) -> Generation: ...
    def constrain(self, grammar: Grammar, begun: bytes) -> Constraint: ...


@dataclass(frozen=True)
class Settings:
    """How to answer.

    max_tokens: None for as many as the context has room for
    exact:      plain decoding's very answer, on every format (see `Engine.generate`)
    grammar:    what the answer is a text of, its reasoning left out; None for any text
    """

    sampling: Sampling
    max_tokens: int | None = None
    depth: Depth = "auto"
    exact: bool = False
    ending: Ending = UNENDED
    grammar: Grammar | None = None


@dataclass(frozen=True)
class _Prompt:
    """Rendered messages without the first `n_left_out`, and their ids.

    pending: bytes that the ids end with, of a character that is not whole yet
    """

    text: str
    ids: list[int]
    n_left_out: int
    pending: bytes = b""


class Session:
    """One conversation with one engine.

    messages: user and assistant turns, alternating; the system message is `system`.
    raw: no chat template, by choice or because the model has none; the texts follow one another
         as they are, and may spell control tokens.
    template: the source of another chat template than the model's own
    variables: the user's, for the template
    """

    def __init__(
        self,
        engine: Engine,
        *,
        system: str | None = None,
        raw: bool = False,
        template: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self._engine = engine
        source = template or usual_template(engine.metadata)
        self.raw = raw or source is None
        self.system = system
        self.messages = []
        self._wording = Wording(engine, None if raw else source, variables or {})
        self._prompts = self._wording.prompts

    @property
    def messages(self) -> list[Message]:
        return self._messages

    @messages.setter
    def messages(self, messages: list[Message]) -> None:
        self._messages = messages
        self._n_left_out = 0
        self._newest: tuple[Message, Begun] | None = None

    def exact(self) -> Exact:
        """What lets another session with this model go on with the messages, id by id."""
        newest = None
        if self._newest is not None and self._messages[-1:] == [self._newest[0]]:
            newest = as_newest(self._newest[1])
        return Exact(self._prompts.kept(), newest, self._n_left_out)

    def resume(self, messages: list[Message], exact: Exact) -> None:
        """Go on with the messages of another session, which gave `exact`."""
        self.messages = messages
        self._prompts.resume(exact.known)
        self._n_left_out = exact.n_left_out
        if exact.newest is not None and messages:
            splitter = self._splitter(messages[exact.n_left_out : -1], Begun())
            self._newest = messages[-1], resumed(exact.newest, splitter)

    @property
    def system(self) -> str | None:
        """The system prompt, "" for one that says nothing and None for the template's own, if any.

        It can change at any time, but a raw conversation has none.
        """
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        if self.raw and text is not None:
            raise MtpError(
                "a system prompt needs a chat template, and here is none "
                "(--chat-template gives one)"
            )
        self._system = text

    @property
    def thinking(self) -> str | None:
        """How much the model is told to think, as `think` took it; None: as the template has it."""
        return self._wording.level

    def think(self, level: str | None) -> None:
        """Tell the model how much to think from now on; MtpError where the template refuses."""
        self._wording.think(level)

    def new_notes(self) -> list[str]:
        """What a user should know of how the messages were put to the model; each is told once."""
        return self._wording.new_notes()

    def own_words(self) -> str:
        """What the template puts in front while no system prompt is set, "" for nothing."""
        return "" if self.system else self._wording.own_words(self.system)

    def drop_system(self) -> str:
        """Have no system prompt; what the template puts in front all the same, "" for nothing."""
        self._system = None
        words = self._wording.own_words(None)
        if words and not self._wording.own_words(""):
            self._system = words = ""
        return words

    def ask(self, text: str, settings: Settings) -> Answer:
        """Answer `text`; raises MtpError, with nothing changed, when it cannot."""
        asked = [*self._messages, Message(role="user", content=text)]
        return self._answer(asked, Begun(), settings)

    def regenerate(self, settings: Settings) -> Answer:
        """Answer the last user message once more; the old answer stays until there is a new one."""
        if not self._messages:
            raise MtpError("there is no answer to make again")
        return self._answer(self._messages[:-1], Begun(), settings)

    def more(self, settings: Settings) -> Answer:
        """Go on with the last answer, where something else than the model ended it."""
        if not self._messages:
            raise MtpError("there is no answer to go on with")
        message = self._messages[-1]
        asked = self._with_system(self._messages[:-1])
        begun = Begun(self._wording.heard(asked, message))
        if self._newest is not None and self._newest[0] is message:
            begun = self._newest[1]
        if begun.is_whole:
            raise MtpError("the last answer came to its own end: ask for what is missing")
        return self._answer(self._messages[:-1], begun, settings)

    @property
    def has_older(self) -> bool:
        """Whether an exchange before the newest is in the prompt: without it there is more room."""
        return self._n_left_out < len(self._messages) - 2

    def undo(self) -> str | None:
        """Take back the last exchange; its user message, or None when there is none."""
        if not self._messages:
            return None
        user, _assistant = self._messages[-2:]
        del self._messages[-2:]
        self._n_left_out = 0  # there may be room again
        return user["content"]

    def _answer(self, asked: list[Message], begun: Begun, settings: Settings) -> Answer:
        prompt = self._fit(asked, begun, settings.max_tokens)
        splitter = self._splitter(asked[prompt.n_left_out :], begun)
        room = self._engine.n_ctx - len(prompt.ids)
        generation = self._engine.generate(
            prompt.ids,
            settings.sampling,
            max_tokens=room if settings.max_tokens is None else min(room, settings.max_tokens),
            depth=settings.depth,
            exact=settings.exact,
            constraint=self._constraint(settings.grammar, splitter, begun),
        )
        listener = listening(splitter.again(), begun.cut_off) if settings.ending.stops else None
        n_before = min(self._n_left_out, len(asked) - 1)
        self._n_left_out = prompt.n_left_out

        def take_up(answer: Answer) -> None:
            if answer.text or answer.reasoning or answer.finish_reason != "interrupted":
                self._take_up(asked, prompt, begun, answer)

        return Answer(
            Speech(generation, self._wording.hear, settings.ending, prompt.pending, listener),
            take_up,
            splitter,
            asked=asked,
            opening=begun.cut_off,
            margin="" if self.raw or begun.splitter else self._prompts.margin,
            n_left_out=(prompt.n_left_out - n_before) // 2,
        )

    def _constraint(
        self, grammar: Grammar | None, splitter: Splitter, begun: Begun
    ) -> Constraint | None:
        """What keeps the answer to a grammar, from where it was left."""
        if grammar is None:
            return None
        from mtp_cli.conversation.thought_first import ThoughtFirst

        said = splitter.again().with_more(begun.cut_off) if begun.cut_off else splitter
        if said.text or (begun.pending and not said.closers):
            with advised("/schema off goes on without it"):
                return self._engine.constrain(grammar, said.text.encode() + begun.pending)
        inner = self._engine.constrain(grammar, b"")
        if not said.can_reason:
            return inner
        return ThoughtFirst(inner, self._engine, said)

    def _take_up(self, asked: list[Message], prompt: _Prompt, begun: Begun, answer: Answer) -> None:
        message = Message(role="assistant", content=answer.splitter.text)
        if answer.splitter.reasoning:
            message["reasoning"] = answer.splitter.reasoning
        self._messages = [*asked, message]
        kept, rest = answer.speech.kept()
        if kept:
            known = prompt.text + answer.splitter.as_said(self._wording.guard_said)
            rest_ids = self._prompts.continued(without_control(rest))
            self._prompts.extend(known, [*prompt.ids, *kept, *rest_ids])
        said = [token for token in answer.tokens if not self._engine.is_eog(token)]
        begun = Begun(
            answer.splitter,
            answer.speech.cut_off(),
            answer.speech.pending,
            prompt.text,
            [*prompt.ids, *said],
            answer.is_whole,
        )
        self._newest = message, begun

    def _fit(self, asked: list[Message], begun: Begun, max_tokens: int | None) -> _Prompt:
        """The prompt, without the oldest exchanges where the context has no room for them."""
        n_ctx, newest = self._engine.n_ctx, len(asked) - 1
        n_left_out = min(self._n_left_out, newest)
        prompt = self._prompt(asked, n_left_out, begun)
        wanted = min(max_tokens or n_ctx, int(n_ctx * _ROOM_FOR_ANSWER))
        if n_ctx - len(prompt.ids) < wanted and n_left_out < newest:
            starts = range(n_left_out + 2, newest, 2)

            def is_short(start: int) -> bool:
                n_tokens = len(self._prompt(asked, start, begun).ids)
                return n_tokens <= n_ctx * _KEPT_WHEN_FULL

            at = bisect.bisect_left(starts, True, key=is_short)
            prompt = self._prompt(asked, starts[at] if at < len(starts) else newest, begun)
        if len(prompt.ids) >= n_ctx:
            raise MtpError(self._no_room(len(prompt.ids), begun))
        return prompt

    def _no_room(self, n_tokens: int, begun: Begun) -> str:
        n_ctx = self._engine.n_ctx
        if begun.splitter is not None:
            return f"this answer fills the context of {n_ctx} tokens: --ctx sets a larger one"
        return (
            f"the prompt has {n_tokens} tokens, and a context of {n_ctx} has no room left for an "
            "answer: shorten it, or start again with a larger --ctx"
        )

    def _prompt(self, asked: list[Message], n_left_out: int, begun: Begun) -> _Prompt:
        text = self._wording.render(self._with_system(asked[n_left_out:]))
        if text == begun.prompt:
            return _Prompt(text, [*begun.ids], n_left_out, begun.pending)
        said = ""
        if begun.splitter is not None:
            guard = self._wording.guard_said
            said = begun.splitter.as_said(guard) + guard(without_control(begun.cut_off))
        return _Prompt(text, self._prompts.read(text + said), n_left_out)

    def _splitter(self, asked: Sequence[Message], begun: Begun) -> Splitter:
        """What tells the answer's parts apart, and has heard what was said of it before."""
        if begun.splitter is not None:
            return begun.splitter.again()
        return self._wording.splitter(self._with_system(asked))

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        system = [] if self.system is None else [Message(role="system", content=self.system)]
        return [*system, *messages]
