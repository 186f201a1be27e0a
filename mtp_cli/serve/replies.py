"""An answer in the API's form: one object, or a stream of them.

Knows events and JSON, and nothing of how either travels.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from mtp_cli.conversation.calls import Call
from mtp_cli.serve.answers import Called, Done, Event, Failed, Said, Shown, Usage

END = b"data: [DONE]\n\n"


def as_event(fields: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


class Reply(Protocol):
    """One answer in one form."""

    def opening(self) -> Iterator[dict[str, Any]]:
        """What a stream begins with."""

    def chunks(self, event: Said | Called | Done) -> Iterator[dict[str, Any]]:
        """What an event is in a stream."""

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        """All events as one object; ApiError where the answer failed."""


class _Reply:
    def __init__(self, prefix: str, kind: str, model: str, *, includes_usage: bool) -> None:
        self._kind = kind
        self._includes_usage = includes_usage
        self._fields = {
            "id": prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": model,
        }

    def _object(self, kind: str, choices: list[Any], **more: Any) -> dict[str, Any]:
        return {**self._fields, "object": kind, "choices": choices, **more}

    def _chunk(self, kind: str, choice: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
        choices = [{"index": 0, **choice, "finish_reason": finish}]
        more = {"usage": None} if self._includes_usage else {}
        return self._object(kind, choices, **more)

    def _last(self, kind: str, usage: Usage) -> Iterator[dict[str, Any]]:
        if self._includes_usage:
            yield self._object(kind, [], usage=as_usage(usage))


class ChatReply(_Reply):
    """As /v1/chat/completions gives it."""

    def __init__(self, model: str, *, includes_usage: bool) -> None:
        super().__init__("chatcmpl-", "chat.completion", model, includes_usage=includes_usage)

    def opening(self) -> Iterator[dict[str, Any]]:
        yield self._delta({"role": "assistant", "content": ""})

    def chunks(self, event: Said | Called | Done) -> Iterator[dict[str, Any]]:
        if isinstance(event, Done):
            yield self._delta({}, finish=event.finish_reason)
            yield from self._last(f"{self._kind}.chunk", event.usage)
        elif isinstance(event, Called):
            calls = [{"index": i, **_call(call)} for i, call in enumerate(event.calls)]
            yield self._delta({"tool_calls": calls})
        else:
            name = "content" if event.kind == "content" else "reasoning_content"
            yield self._delta({name: event.text}, event.logprobs)

    def _delta(
        self, delta: Mapping[str, Any], logprobs: tuple[Shown, ...] = (), finish: str | None = None
    ) -> dict[str, Any]:
        listed = {"content": [_token(one) for one in logprobs]} if logprobs else None
        return self._chunk(f"{self._kind}.chunk", {"delta": delta, "logprobs": listed}, finish)

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        found = _Whole(events)
        calls = [_call(call) for call in found.calls]
        content = found.content if not calls or found.content.strip() else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if found.reasoning:
            message["reasoning_content"] = found.reasoning
        if calls:
            message["tool_calls"] = calls
        listed = {"content": [_token(one) for one in found.logprobs]} if found.logprobs else None
        choice = {"index": 0, "message": message, "logprobs": listed, "finish_reason": found.finish}
        return self._object(self._kind, [choice], usage=as_usage(found.usage))


class CompletionReply(_Reply):
    """As /v1/completions gives it."""

    def __init__(self, model: str, *, includes_usage: bool) -> None:
        super().__init__("cmpl-", "text_completion", model, includes_usage=includes_usage)
        self._n_chars = 0

    def opening(self) -> Iterator[dict[str, Any]]:
        yield from ()

    def chunks(self, event: Said | Called | Done) -> Iterator[dict[str, Any]]:
        if isinstance(event, Done):
            yield self._chunk(self._kind, {"text": "", "logprobs": None}, event.finish_reason)
            yield from self._last(self._kind, event.usage)
        elif isinstance(event, Said):
            listed = self._listed(event.logprobs)
            yield self._chunk(self._kind, {"text": event.text, "logprobs": listed}, None)

    def whole(self, events: Iterable[Event]) -> dict[str, Any]:
        found = _Whole(events)
        listed = self._listed(tuple(found.logprobs))
        choice = {"index": 0, "text": found.content, "logprobs": listed}
        choice["finish_reason"] = found.finish
        return self._object(self._kind, [choice], usage=as_usage(found.usage))

    def _listed(self, logprobs: tuple[Shown, ...]) -> dict[str, Any] | None:
        if not logprobs:
            return None
        tokens = [_text(one.token) for one in logprobs]
        offsets = []
        for token in tokens:
            offsets.append(self._n_chars)
            self._n_chars += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [{_text(t): logprob for t, logprob in one.top} for one in logprobs],
            "text_offset": offsets,
        }


class _Whole:
    """What a whole answer came to."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.content = self.reasoning = ""
        self.calls: tuple[Call, ...] = ()
        self.logprobs: list[Shown] = []
        self.finish = "stop"
        self.usage = Usage(0, 0, 0, 0)
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Called):
            self.calls = event.calls
        elif isinstance(event, Done):
            self.finish, self.usage = event.finish_reason, event.usage
        else:
            self.logprobs += event.logprobs
            if event.kind == "content":
                self.content += event.text
            else:
                self.reasoning += event.text


def as_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.n_prompt,
        "completion_tokens": usage.n_answer,
        "total_tokens": usage.n_prompt + usage.n_answer,
        "prompt_tokens_details": {"cached_tokens": usage.n_cached},
        "completion_tokens_details": {"reasoning_tokens": usage.n_reasoning},
    }


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": "call_" + secrets.token_hex(12), "type": "function", "function": function}


def _token(shown: Shown) -> dict[str, Any]:
    top = [_one(token, logprob) for token, logprob in shown.top]
    return {**_one(shown.token, shown.logprob), "top_logprobs": top}


def _one(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _text(token), "logprob": logprob, "bytes": [*token]}


def _text(token: bytes) -> str:
    return token.decode(errors="replace")
