"""One request answered by the engine, as events for whoever waits.

Knows text, calls and log-probabilities, and nothing of HTTP. Runs in the engine's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mtp_cli.conversation.answer import Answer
from mtp_cli.conversation.calls import Call, CallScanner
from mtp_cli.conversation.reasoning import Kind, listening
from mtp_cli.conversation.session import Depth
from mtp_cli.conversation.speech import Ending, Generation, Speech
from mtp_cli.conversation.thought_first import ThoughtFirst
from mtp_cli.engine.sampling.logprobs import TokenLogprob, of_row
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from mtp_cli.serve.faults import ApiError, internal, invalid, overloaded
from mtp_cli.serve.prompts import Prompt, Prompts, Vocabulary
from mtp_cli.serve.timelines import Timeline, Timelines

if TYPE_CHECKING:
    from mtp_cli.engine import Sampling, Stats
    from mtp_cli.engine.grammar.constraint import Constraint
    from mtp_cli.engine.grammar.source import Grammar

_LEAST_LOGPROB = -9999.0  # as the API has it for what cannot come; JSON knows no infinity
_REASONS = {"stop": "stop", "length": "length", "repetition": "length"}


class Engine(Vocabulary, Timeline, Protocol):
    """What answering needs of an engine."""

    def forget(self) -> None: ...
    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        max_tokens: int,
        depth: Depth,
        exact: bool,
        watch: Callable[[int, Floats], None] | None,
        constraint: Constraint | None,
    ) -> Generation: ...
    def constrain(self, grammar: Grammar, begun: bytes = b"") -> Constraint: ...


@dataclass(frozen=True)
class Ask:
    """A request as the engine takes it.

    max_tokens: None for as many as the context has room for
    n_top:      likeliest tokens to list beside each one; None for no log-probabilities
    max_calls:  None for as many as the model likes
    grammar:    what the answer is a text of; None for any text
    """

    prompt: Prompt
    sampling: Sampling
    max_tokens: int | None = None
    ending: Ending = field(default_factory=Ending)
    n_top: int | None = None
    max_calls: int | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True)
class Shown:
    """A token for people, its log-probability, and the likeliest ones in its place."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True)
class Said:
    """A piece of the answer. logprobs: of the tokens that came with it"""

    kind: Kind
    text: str
    logprobs: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class Called:
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Usage:
    """Tokens. n_cached: of the prompt's; n_reasoning: of the answer's"""

    n_prompt: int
    n_cached: int
    n_answer: int
    n_reasoning: int


@dataclass(frozen=True)
class Done:
    """finish_reason: as the API has it"""

    finish_reason: str
    usage: Usage


@dataclass(frozen=True)
class Failed:
    error: ApiError


Event = Said | Called | Done | Failed


@dataclass(frozen=True)
class Desk:
    """All that answers share.

    depth, exact: see `Engine.generate`
    on_stats: told what each answer cost, and the seconds that it had waited for its turn
    """

    engine: Engine
    prompts: Prompts
    timelines: Timelines
    depth: Depth = "auto"
    exact: bool = False
    on_stats: Callable[[Stats, float], None] = lambda stats, waited_s: None


class AnswerJob:
    """One request's turn at the engine. `deliver` gets its events, from the engine's thread."""

    def __init__(self, desk: Desk, ask: Ask, client: str, deliver: Callable[[Event], None]) -> None:
        self.client = client
        self._desk = desk
        self._ask = ask
        self._deliver = deliver
        self._answer: Answer | None = None
        self._is_stopped = False
        self._put_s = time.monotonic()

    def stop(self) -> None:
        """Let the round under way be the last; from any thread."""
        self._is_stopped = True
        answer = self._answer
        if answer is not None:
            answer.stop()

    def fail(self, error: Exception) -> None:
        if not isinstance(error, ApiError):
            error = internal()
        self._deliver(Failed(error))

    def run(self) -> None:
        waited_s = time.monotonic() - self._put_s
        if self._is_stopped:
            return
        try:
            for event in self._events():
                self._deliver(event)
        except ApiError:
            raise
        except Exception as error:
            self._desk.engine.forget()  # what it holds now is anyone's guess
            if isinstance(error, MtpError):
                error = ApiError(500, str(error), code="engine", kind="server_error")
            raise error from None
        finally:
            if self._answer is not None:
                self._desk.on_stats(self._answer.stats, waited_s)
                self._answer = None

    def _events(self) -> Iterator[Event]:
        desk, ask, prompt = self._desk, self._ask, self._ask.prompt
        logprobs: list[TokenLogprob] = []
        desk.timelines.prepare(prompt.ids)
        room = desk.engine.n_ctx - len(prompt.ids)
        generation = desk.engine.generate(
            prompt.ids,
            ask.sampling,
            max_tokens=room if ask.max_tokens is None else min(room, ask.max_tokens),
            depth=desk.depth,
            exact=desk.exact,
            watch=None if ask.n_top is None else _watching(logprobs, ask.n_top),
            constraint=self._constraint(),
        )
        answer = self._answer = self._begun(generation)
        if self._is_stopped:  # while it was begun
            answer.stop()
        yield from self._said(answer, logprobs)

    def _constraint(self) -> Constraint | None:
        """What keeps the answer to its grammar; ApiError where nothing could."""
        grammar = self._ask.grammar
        if grammar is None:
            return None
        engine, prompt = self._desk.engine, self._ask.prompt
        try:
            inner = engine.constrain(grammar)
        except MtpError as error:
            raise invalid(grammar.kind, str(error)) from error
        if prompt.templated is None or not prompt.splitter.can_reason:
            return inner
        return ThoughtFirst(inner, engine, prompt.splitter)

    def _begun(self, generation: Generation) -> Answer:
        ask, prompt = self._ask, self._ask.prompt
        listener = listening(prompt.splitter.again()) if ask.ending.stops else None
        speech = Speech(generation, self._desk.prompts.hearing(prompt), ask.ending, b"", listener)
        return Answer(
            speech,
            lambda answer: self._desk.prompts.learn(prompt, answer),
            prompt.splitter.again(),
            margin=prompt.margin,
        )

    def _said(self, answer: Answer, logprobs: list[TokenLogprob]) -> Iterator[Event]:
        scanner = self._scanner()
        n_shown = n_taken = n_reasoning = 0
        for kind, text in answer.parts():
            n_before, n_taken = n_taken, len(answer.tokens)
            n_reasoning += n_taken - n_before if kind == "reasoning" else 0
            shown = self._shown(answer, logprobs, n_shown)
            n_shown += len(shown)
            if kind == "content" and scanner is not None:
                text = scanner.feed(text)
            if text or shown:
                yield Said(kind, text, shown)
        if answer.finish_reason == "interrupted":
            yield Failed(overloaded("the server stopped this answer"))
            return
        rest, calls = scanner.finish(self._ask.prompt.schemas) if scanner else ("", [])
        shown = self._shown(answer, logprobs, n_shown)
        if rest or shown:
            yield Said("content", rest, shown)
        if calls:
            yield Called(tuple(calls[: self._ask.max_calls]))
        reason, stats = _REASONS[answer.finish_reason], answer.stats
        yield Done(
            "tool_calls" if calls and reason == "stop" else reason,
            Usage(stats.prompt_tokens, stats.cached_tokens, len(answer.tokens), n_reasoning),
        )

    def _scanner(self) -> CallScanner | None:
        calling = self._ask.prompt.calling
        return calling.scanner() if calling is not None and calling.is_known else None

    def _shown(
        self, answer: Answer, logprobs: Sequence[TokenLogprob], n_shown: int
    ) -> tuple[Shown, ...]:
        """Of the tokens whose text has been given out, those that were not shown before."""
        if self._ask.n_top is None:
            return ()
        spell = self._spell
        return tuple(
            Shown(
                spell(one.token),
                max(one.logprob, _LEAST_LOGPROB),
                tuple((spell(token), max(logprob, _LEAST_LOGPROB)) for token, logprob in one.top),
            )
            for one in logprobs[n_shown : len(answer.speech.kept()[0])]
        )

    def _spell(self, token: int) -> bytes:
        return self._desk.engine.piece(token, special=True)


def _watching(found: list[TokenLogprob], n_top: int) -> Callable[[int, Floats], None]:
    def watch(token: int, logits: Floats) -> None:
        found.append(of_row(token, logits, n_top))

    return watch
