"""Calls are read back out of every syntax that is known, however the text comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mtp_cli.conversation.calls import Call, CallScanner, read

ARGUMENTS = {"city": "Paris", "days": 3}
OBJECT = json.dumps(ARGUMENTS)
TAGS = "<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
PAIRS = (
    "<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n"
)
WRITTEN = {
    "hermes": f'<tool_call>\n{{"name": "weather", "arguments": {OBJECT}}}\n</tool_call>',
    "llama 3": f'{{"name": "weather", "parameters": {OBJECT}}}',
    "mistral": f'[TOOL_CALLS][{{"name": "weather", "arguments": {OBJECT}, "id": "abcdefgh1"}}]',
    "mistral, newer": f"[TOOL_CALLS]weather[CALL_ID]abcdefgh1[ARGS]{OBJECT}",
    "mistral, newest": f"[TOOL_CALLS]weather[ARGS]{OBJECT}",
    "command": f'<|START_ACTION|>[\n {{"tool_name": "weather", "parameters": {OBJECT}}}\n]',
    "deepseek": "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>"
    f"function<\uff5ctool\u2581sep\uff5c>weather\n```json\n{OBJECT}\n```",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
    f"<|tool_call_argument_begin|>{OBJECT}<|tool_call_end|>",
    "functionary": f"<function=weather>{OBJECT}</function>",
    "qwen coder": f"<tool_call>\n<function=weather>\n{TAGS}</function>\n</tool_call>",
    "glm": f"<tool_call>weather\n{PAIRS}</tool_call>",
    "in a function": f'[{{"type": "function", "function": {{"name": "weather", '
    f'"arguments": {json.dumps(OBJECT)}}}}}]',
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "weather": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
}


def read_all(text: str) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in read(text, SCHEMAS)]


@pytest.mark.parametrize("syntax", WRITTEN)
def test_a_call_is_read(syntax: str) -> None:
    assert read_all(WRITTEN[syntax]) == [("weather", ARGUMENTS)]


@pytest.mark.parametrize("syntax", ["hermes", "functionary", "qwen coder", "glm"])
def test_several_calls_are_read_in_order(syntax: str) -> None:
    other = WRITTEN[syntax].replace("weather", "news")
    assert [name for name, _ in read_all(WRITTEN[syntax] + "\n" + other)] == ["weather", "news"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "Hello {name}", '{"city": "Paris"}', "[1, 2]", '<tool_call>{"name": "f"', "[" * 5000],
)
def test_what_is_no_call_is_none(text: str) -> None:
    assert read(text, {}) == []


def test_a_text_stays_a_text_where_its_schema_says_so() -> None:
    text = "<function=f><parameter=a>3</parameter><parameter=b>3</parameter></function>"
    schemas = {"f": {"properties": {"a": {"type": "string"}}}}
    assert read(text, schemas) == [Call("f", '{"a": "3", "b": 3}')]


@pytest.mark.parametrize("schema", [{"properties": 5}, {"properties": {"a": 5}}, {}])
def test_a_schema_that_is_none_is_no_obstacle(schema: dict[str, Any]) -> None:
    text = "<function=f><parameter=a>x</parameter></function>"
    assert read(text, {"f": schema}) == [Call("f", '{"a": "x"}')]


def scanned(
    text: str, size: int, *, marks: tuple[str, ...] = ("<tool_call>",), is_bare: bool = False
) -> tuple[str, list[Call]]:
    """What a scanner passes on of a text that comes in pieces, and the calls in it."""
    scanner = CallScanner(marks, is_bare=is_bare)
    passed = "".join(scanner.feed(text[at : at + size]) for at in range(0, len(text), size))
    rest, calls = scanner.finish(SCHEMAS)
    return passed + rest, calls


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_text_goes_on_until_a_call_begins(size: int) -> None:
    text, calls = scanned("I look it up. < 3" + WRITTEN["hermes"], size)
    assert text == "I look it up. < 3"
    assert [call.name for call in calls] == ["weather"]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_json_without_a_mark_is_a_call_where_it_begins_the_answer(size: int) -> None:
    text, calls = scanned("\n" + WRITTEN["llama 3"], size, marks=(), is_bare=True)
    assert (text, [call.name for call in calls]) == ("", ["weather"])
    later = "As JSON: " + WRITTEN["llama 3"]
    assert scanned(later, size, marks=(), is_bare=True) == (later, [])


@pytest.mark.parametrize("text", ["", " ", "<tool_", "<tool_call>no call", "plain", '{"a": 1}'])
@pytest.mark.parametrize("is_bare", [False, True])
def test_nothing_is_lost_where_there_is_no_call(text: str, is_bare: bool) -> None:
    assert scanned(text, 1, is_bare=is_bare) == (text, [])
