"""Calls that a client insists on: the openai package at a real server, whose template has tools.

The built-in model knows no tools, so that whatever is right here is the grammar's doing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest

from tests.serve.process import Served

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '' if loop.first else '\n' }}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
UNITS = ["celsius", "kelvin"]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    parameters = {**schema, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS: Any = [
    tool("weather", place={"enum": ["Paris", "Rome"]}, unit={"enum": UNITS}),
    tool("add", a={"type": "integer", "maximum": 99, "minimum": 0}, b={"enum": [1, 2]}),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    template = tmp_path_factory.mktemp("template") / "tools.jinja"
    template.write_text(TEMPLATE)
    with (
        Served("--ctx", "1024", "--chat-template", str(template)) as running,
        openai.OpenAI(base_url=running.url, api_key="none", max_retries=0) as opened,
    ):
        yield opened


QUESTION: Any = {"role": "user", "content": "How warm is it in Rome?"}


def asked(client: openai.OpenAI, choice: Any, before: Sequence[Any] = (), **fields: Any) -> Any:
    """before: messages in front of the question"""
    return client.chat.completions.create(
        model="",
        messages=[*before, QUESTION],
        temperature=0,
        max_tokens=400,
        tools=TOOLS,
        tool_choice=choice,
        **fields,
    )


def checked(call: Any) -> str:
    given = json.loads(call.function.arguments)
    if call.function.name == "weather":
        assert given["place"] in ("Paris", "Rome")
        assert given["unit"] in UNITS
    else:
        assert given["a"] in range(100)
        assert given["b"] in (1, 2)
    assert len(given) == 2
    return str(call.function.name)


def test_a_call_that_is_required_comes(client: openai.OpenAI) -> None:
    choice = asked(client, "required", parallel_tool_calls=False).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    assert [*map(checked, choice.message.tool_calls)] in (["weather"], ["add"])


@pytest.mark.parametrize("name", ["weather", "add"])
def test_a_function_that_is_named_is_called(client: openai.OpenAI, name: str) -> None:
    named = {"type": "function", "function": {"name": name}}
    calls = asked(client, named, parallel_tool_calls=False).choices[0].message.tool_calls
    assert [*map(checked, calls)] == [name]


def test_a_stream_brings_the_same_call(client: openai.OpenAI) -> None:
    whole = asked(client, "required", parallel_tool_calls=False).choices[0].message.tool_calls
    chunks = [*asked(client, "required", parallel_tool_calls=False, stream=True)]
    [call] = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or ()]
    assert call.function.name == whole[0].function.name
    assert call.function.arguments == whole[0].function.arguments
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


ONE_OR_TWO: Any = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"enum": [1, 2]}},
}


def test_an_answer_in_a_schema_where_a_call_is_allowed_too(client: openai.OpenAI) -> None:
    choice = asked(client, "auto", response_format=ONE_OR_TWO).choices[0]
    assert choice.finish_reason == "stop"
    assert not choice.message.tool_calls
    assert json.loads(choice.message.content) in (1, 2)


def test_a_call_where_an_answer_in_a_schema_is_allowed_too(client: openai.OpenAI) -> None:
    """The model says again what it said before."""
    function = {"name": "weather", "arguments": '{"place": "Paris", "unit": "celsius"}'}
    call = {"id": "first", "type": "function", "function": function}
    before = [
        {"role": "user", "content": "How warm is it in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "first", "content": "20"},
    ]
    choice = asked(
        client, "auto", before, response_format=ONE_OR_TWO, parallel_tool_calls=False
    ).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    assert [*map(checked, choice.message.tool_calls)] == ["weather"]


@pytest.mark.parametrize(
    ("choice", "fields", "param"),
    [
        ({"type": "function", "function": {"name": "none"}}, {}, "tool_choice"),
        ("required", {"response_format": {"type": "json_object"}}, "tool_choice"),
        ("required", {"extra_body": {"tools": []}}, "tool_choice"),
    ],
)
def test_what_cannot_be_called_is_an_error(
    client: openai.OpenAI, choice: Any, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        asked(client, choice, **fields)
    assert caught.value.param == param
