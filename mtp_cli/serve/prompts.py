"""From a request's messages to ids, for many conversations over one tokeniser.

Owns what is remembered of answers: text that was answered keeps the ids that it came in, so that a
conversation that goes on finds all of itself in the cache. Knows nothing of HTTP or of queues.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mtp_cli.conversation.answer import Answer
from mtp_cli.conversation.call_grammar import calls_alone
from mtp_cli.conversation.calls import Schemas
from mtp_cli.conversation.control import without_control
from mtp_cli.conversation.levels import is_level
from mtp_cli.conversation.prompt import PromptReader, chat_format, quoted
from mtp_cli.conversation.reasoning import Splitter
from mtp_cli.conversation.speech import Heard, heard
from mtp_cli.conversation.template import ChatTemplate, Message
from mtp_cli.conversation.templated import Templated
from mtp_cli.conversation.tokenizer import Tokenizer
from mtp_cli.conversation.tools import Calling
from mtp_cli.engine.types import Ids
from mtp_cli.errors import MtpError
from mtp_cli.serve.faults import ApiError, invalid, unsupported
from mtp_cli.serve.messages import as_messages, as_tools, guarded, schemas, text_of
from mtp_cli.serve.requests import ChatRequest

if TYPE_CHECKING:
    from mtp_cli.engine.grammar.source import Grammar

_MAX_KNOWN = 8_000_000  # characters of remembered conversations: with their ids about 20 MB
# What surely does not fit is refused unread: reading it takes seconds, in which others wait.
_MAX_CHARS_A_TOKEN = 32  # of text, on average
_MIN_TOKENS_A_TURN = 4  # marks around a message
_N_TEMPLATES = 8  # kept ready: one for each effort and set of variables that clients ask for


class Vocabulary(Tokenizer, Protocol):
    """What prompts need of an engine."""

    n_vocab: int

    @property
    def n_ctx(self) -> int: ...


@dataclass(frozen=True)
class Prompt:
    """What the engine is asked, and what its answer is read with.

    text:    as it was rendered; None for one that came as ids
    calling: how calls of tools are written; None where none are offered
    schemas: of the tools that are
    """

    ids: list[int]
    reader: PromptReader
    text: str | None = None
    templated: Templated | None = None
    splitter: Splitter = field(default_factory=Splitter)
    calling: Calling | None = None
    schemas: Schemas = field(default_factory=dict)

    @property
    def margin(self) -> str:
        """What the tokenizer puts in front of an answer's first word, which is no part of it."""
        return self.reader.margin if self.templated else ""

    def guard_said(self, text: str) -> str:
        """What an answer says is none of its marks, which templates look for in content."""
        marks = self.templated.reasoning_marks if self.templated else ()
        return quoted(self.reader.guard(text), marks)


@dataclass(frozen=True)
class _Ready:
    """A template as it is to think; format: all that it writes around texts"""

    templated: Templated
    format: str


class _Known:
    """Conversations as text and ids, the oldest of which go when there are too many."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, Ids] = OrderedDict()
        self._n_chars = 0

    def add(self, text: str, ids: Sequence[int]) -> None:
        if text not in self._ids:
            self._n_chars += len(text)
        self._ids[text] = np.array(ids, np.int32)
        self._ids.move_to_end(text)
        while self._n_chars > _MAX_KNOWN:
            oldest, _ = self._ids.popitem(last=False)
            self._n_chars -= len(oldest)

    def tell(self, reader: PromptReader, text: str) -> None:
        """Let `reader` know all that `text` begins with."""
        begun = sorted((known for known in self._ids if text.startswith(known)), key=len)
        for known in begun:
            reader.extend(known, self._ids[known].tolist())


class Prompts:
    """source: the chat template, None for none; variables: the operator's, for it.

    system: stands in front of conversations that have no system message; None for nothing
    Safe to use from several threads: one prompt is made at a time.
    """

    def __init__(
        self,
        engine: Vocabulary,
        source: str | None,
        *,
        variables: Mapping[str, Any],
        system: str | None,
    ) -> None:
        self._engine = engine
        self._variables = dict(variables)
        self._system = system
        self._template = None
        if source is not None:
            self._template = ChatTemplate(
                source, bos=engine.special_text("bos"), eos=engine.special_text("eos")
            )
        self._ready: OrderedDict[tuple[str | None, str], _Ready] = OrderedDict()
        self._known = _Known()
        self._lock = threading.Lock()
        if self._template is not None:  # what is wrong with it shows when the server starts
            self._templated(None, {})

    def chat(self, request: ChatRequest) -> Prompt:
        """ApiError for what the template refuses, or what is longer than the context."""
        texts = [
            text_of(turn.content, f"messages[{i}].content")
            for i, turn in enumerate(request.messages)
        ]
        self._check_length(sum(map(len, texts)), len(texts), "messages")
        with self._lock:
            try:
                return self._chat(request)
            except MtpError as error:
                raise ApiError(400, str(error), param="messages", code="invalid_value") from error

    def continued(self, prompt: str | Sequence[int]) -> Prompt:
        """A text or its ids, which the model goes on with."""
        reader = PromptReader(self._engine, None)
        if not isinstance(prompt, str):
            if any(not 0 <= token < self._engine.n_vocab for token in prompt):
                raise invalid("prompt", f"ids are from 0 to {self._engine.n_vocab - 1}")
            return self._checked(Prompt(list(prompt), reader), "prompt")
        self._check_length(len(prompt), 0, "prompt")
        with self._lock:
            text = reader.guard(prompt)
            self._known.tell(reader, text)
            return self._checked(Prompt(reader.read(text), reader, text), "prompt")

    def calls(self, request: ChatRequest, prompt: Prompt) -> Grammar:
        """What the answer is where tools have to be called, or a schema kept to if they are not.

        ApiError where the format of calls, or a tool's schema in it, is none that can be kept to.
        """
        from mtp_cli.engine.grammar.parts import Parts  # loads llguidance

        param = "tool_choice" if request.must_call else request.grammars[0].param
        schema = None if request.must_call else request.grammars[0].source
        if prompt.calling is None or isinstance(schema, str):
            raise unsupported(param, "is not served together with tools")
        try:
            return calls_alone(
                prompt.calling,
                schemas(request.callable_tools),
                Parts(self._engine),
                at_most_one=request.parallel_tool_calls is False,
                or_json=schema,
            )
        except MtpError as error:
            raise unsupported(param, str(error)) from error

    def learn(self, prompt: Prompt, answer: Answer) -> None:
        """Remember the ids of what was said to a prompt."""
        kept, rest = answer.speech.kept()
        if prompt.text is None or not kept:
            return
        text = prompt.text + answer.splitter.as_said(prompt.guard_said)
        rest_ids = prompt.reader.continued(without_control(rest))
        with self._lock:
            self._known.add(text, [*prompt.ids, *kept, *rest_ids])

    def hearing(self, prompt: Prompt) -> Callable[[int], Heard]:
        """What reads an answer's tokens; control tokens that write calls are text there."""

        def hear(token: int) -> Heard:
            found = heard(self._engine, token, marks_control=prompt.templated is not None)
            if found.spelling and prompt.calling and found.spelling in prompt.calling.written:
                return Heard(found.spelling.encode())
            return found

        return hear

    def _chat(self, request: ChatRequest) -> Prompt:
        found = self._templated(request.reasoning_effort, request.chat_template_kwargs or {})
        templated, reader = found.templated, PromptReader(self._engine, found.format)
        calling, tools = None, None
        if request.offered:
            calling = templated.calling
            if calling is None:
                raise unsupported("tools", "the model's chat template defines none")
            tools = as_tools(request.offered, reader.guard)
        takes_text = templated.calling is not None and templated.calling.takes_text
        messages = as_messages(request.messages, self._system, takes_text=takes_text)
        prompt = Prompt(
            [], reader, templated=templated, calling=calling, schemas=schemas(request.offered)
        )
        put = [_guarded(message, prompt) for message in messages]
        text = templated.render(put, tools)
        templated.new_notes()  # of no use to a client, and not to be collected
        self._known.tell(reader, text)
        made = Prompt(
            reader.read(text),
            reader,
            text,
            templated,
            templated.splitter(put, tools),
            calling,
            prompt.schemas,
        )
        return self._checked(made, "messages")

    def _templated(self, effort: str | None, variables: Mapping[str, Any]) -> _Ready:
        """The template as it is to think, and with a client's variables."""
        if self._template is None:
            raise ApiError(
                400, "the model has no chat template: /v1/completions continues a text",
                code="no_chat_template",
            )  # fmt: skip
        key = effort, json.dumps(variables, sort_keys=True)
        if key not in self._ready:
            level = {"none": "off", "xhigh": "max"}.get(effort or "", effort)
            if level is not None and not is_level(level):
                raise invalid("reasoning_effort", f"there is no effort {effort!r}")
            made = Templated(self._engine, self._template, {**self._variables, **variables})
            made.think(level)
            self._ready[key] = _Ready(made, chat_format(made.preview, made.format))
            if len(self._ready) > _N_TEMPLATES:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return self._ready[key]

    def _checked(self, prompt: Prompt, param: str) -> Prompt:
        n_tokens, n_ctx = len(prompt.ids), self._engine.n_ctx
        if n_tokens == 0:
            raise invalid(param, "the prompt is empty")
        if n_tokens >= n_ctx:
            raise self._too_long(f"the prompt has {n_tokens} tokens", param)
        return prompt

    def _check_length(self, n_chars: int, n_turns: int, param: str) -> None:
        n_ctx = self._engine.n_ctx
        if n_chars > _MAX_CHARS_A_TOKEN * n_ctx:
            raise self._too_long(f"the prompt has {n_chars} characters", param)
        if n_turns * _MIN_TOKENS_A_TURN > n_ctx:
            raise self._too_long(f"there are {n_turns} messages", param)

    def _too_long(self, what: str, param: str) -> ApiError:
        return ApiError(
            400,
            f"{what}, and a context of {self._engine.n_ctx} tokens has no room left for an answer "
            "(mtp-serve --ctx sets a larger one)",
            param=param,
            code="context_length_exceeded",
        )


def _guarded(message: Message, prompt: Prompt) -> Message:
    guard = prompt.guard_said if message["role"] == "assistant" else prompt.reader.guard
    found = Message(role=message["role"], content=guard(message["content"]))
    if "reasoning" in message:
        found["reasoning"] = guard(message["reasoning"])
    if "more" in message:
        found["more"] = guarded(message["more"], prompt.reader.guard)
    return found
