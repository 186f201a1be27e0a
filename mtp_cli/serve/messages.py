"""The API's messages and tools as a chat template takes them. Knows nothing of ids or of HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from mtp_cli.conversation.calls import Schemas
from mtp_cli.conversation.template import Message, Role
from mtp_cli.serve.faults import unsupported
from mtp_cli.serve.requests import Part, Tool, ToolCall, Turn

Guard = Callable[[str], str]


def text_of(content: str | Sequence[Part] | None, param: str) -> str:
    """A content as one text; ApiError for anything but text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for i, part in enumerate(content):
        if part.type not in ("text", "input_text", "output_text") or part.text is None:
            raise unsupported(f"{param}[{i}]", "a content of type text is served")
        texts.append(part.text)
    return "\n".join(texts)


def as_messages(turns: Sequence[Turn], system: str | None, *, takes_text: bool) -> list[Message]:
    """What a conversation's template is given, texts unguarded.

    system:     what stands in front where no system message does; None for nothing
    takes_text: arguments of calls as JSON text, not as objects
    """
    messages = [_message(i, turn, takes_text) for i, turn in enumerate(turns)]
    n_system = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    told = [message["content"] for message in messages[:n_system]]
    if not told and system is not None:
        told = [system]
    front = [Message(role="system", content="\n\n".join(told))] if told else []
    return [*front, *messages[n_system:]]


def _message(i: int, turn: Turn, takes_text: bool) -> Message:
    role: Role = "system" if turn.role == "developer" else turn.role
    message = Message(role=role, content=text_of(turn.content, f"messages[{i}].content"))
    more: dict[str, Any] = {}
    if turn.name is not None:
        more["name"] = turn.name
    if role == "assistant" and turn.reasoning_content:
        message["reasoning"] = turn.reasoning_content
    if role == "assistant" and turn.tool_calls:
        more["tool_calls"] = [_call(call, takes_text) for call in turn.tool_calls]
    if role == "tool" and turn.tool_call_id is not None:
        more["tool_call_id"] = turn.tool_call_id
    if more:
        message["more"] = more
    return message


def _call(call: ToolCall, takes_text: bool) -> dict[str, Any]:
    arguments: Any = call.function.arguments
    if not takes_text:
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):  # a model wrote it: it stays the text that it is
            arguments = call.function.arguments
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def as_tools(tools: Sequence[Tool], guard: Guard) -> list[dict[str, Any]]:
    """As templates take tools, every text in them guarded."""
    return [guarded(tool.model_dump(exclude_none=True), guard) for tool in tools]


def schemas(tools: Sequence[Tool]) -> Schemas:
    return {tool.function.name: tool.function.parameters for tool in tools}


def guarded(value: Any, guard: Guard) -> Any:
    """A JSON value with its texts guarded; the names of fields, too."""
    if isinstance(value, str):
        return guard(value)
    if isinstance(value, list):
        return [guarded(item, guard) for item in value]
    if isinstance(value, dict):
        return {guard(key): guarded(item, guard) for key, item in value.items()}
    return value
