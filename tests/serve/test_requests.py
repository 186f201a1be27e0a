"""What the API takes and what it refuses, each with the API's own error object."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mtp_cli.serve.faults import ApiError, of_validation
from mtp_cli.serve.requests import ChatRequest, CompletionRequest

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}


def named(tool: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool}}


def refusal(body: Any, kind: type[ChatRequest | CompletionRequest] = ChatRequest) -> ApiError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        kind.model_validate_json(raw).check()
    except ValidationError as error:
        return of_validation(error)
    except ApiError as error:
        return error
    pytest.fail("it was taken")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None, "invalid_json"),
        (b"\xff", None, "invalid_json"),
        (b"[" * 10_000, None, "invalid_json"),
        ([], None, "invalid_type"),
        ({}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "wizard"}]}, "messages[0].role", "invalid_value"),
        ({**HELLO, "temperature": 3}, "temperature", "invalid_value"),
        ({**HELLO, "temperature": "hot"}, "temperature", "invalid_value"),
        ({**HELLO, "max_tokens": 0}, "max_tokens", "invalid_value"),
        ({**HELLO, "n": 2}, "n", "unsupported_parameter"),
        ({**HELLO, "logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({**HELLO, "top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({**HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({**HELLO, "tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({**HELLO, **TOOLS, "tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
        ({**HELLO, **TOOLS, "tool_choice": named("g")}, "tool_choice", "invalid_value"),
        (
            {**HELLO, **TOOLS, "tool_choice": {"type": "function"}},
            "tool_choice",
            "unsupported_parameter",
        ),
        (
            {**HELLO, **TOOLS, "tool_choice": {"type": "allowed_tools"}},
            "tool_choice",
            "unsupported_parameter",
        ),
        (
            {**HELLO, **TOOLS, "tool_choice": named("f"), "json_schema": {}},
            "tool_choice",
            "invalid_value",
        ),
        ({**HELLO, "functions": []}, "functions", "unsupported_parameter"),
        (
            {**HELLO, "response_format": {"type": "json_schema"}},
            "response_format.json_schema.schema",
            "invalid_value",
        ),
        ({**HELLO, "response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {**HELLO, "grammar": "root ::= [a]", "json_schema": {}},
            "json_schema",
            "unsupported_parameter",
        ),
        (
            {**HELLO, **TOOLS, "grammar": "root ::= [a]"},
            "grammar",
            "unsupported_parameter",
        ),
        ({**HELLO, "modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({**HELLO, "stop": ["a"] * 17}, "stop", "invalid_value"),
        ({**HELLO, "seed": 2**70}, "seed", "invalid_value"),
    ],
)
def test_what_is_refused_is_named(body: Any, param: str | None, code: str) -> None:
    error = refusal(body)
    assert (error.status, error.param, error.code) == (400, param, code)
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt": ["a", "b"]}, "prompt"), ({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"),
     ({"best_of": 3}, "best_of"), ({"logprobs": 21}, "logprobs")],
)  # fmt: skip
def test_completions_refuse_what_they_do_not_serve(fields: dict[str, Any], param: str) -> None:
    asked = {"prompt": "x", **fields}
    if param != "prompt":
        assert refusal(asked, CompletionRequest).param == param
        return
    with pytest.raises(ApiError):
        _ = CompletionRequest.model_validate(asked).only_prompt


def test_prompts_come_in_four_forms() -> None:
    forms = ("ab", ["ab"], [1, 2], [[1, 2]])
    found = [CompletionRequest.model_validate({"prompt": form}).only_prompt for form in forms]
    assert found == ["ab", "ab", [1, 2], [1, 2]]


def test_unknown_fields_are_passed_over() -> None:
    fields = {**HELLO, "store": True, "metadata": {"a": "b"}, "service_tier": "auto"}
    ChatRequest.model_validate(fields).check()


def test_sampling_has_the_engines_names() -> None:
    fields = {
        **HELLO, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": -1,
        "frequency_penalty": 1, "presence_penalty": -1, "repeat_penalty": 1.1, "repeat_last_n": 9,
    }  # fmt: skip
    assert ChatRequest.model_validate(fields).sampling == {
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 2**64 - 1,
        "penalty_freq": 1, "penalty_present": -1, "penalty_repeat": 1.1, "penalty_last_n": 9,
    }  # fmt: skip
    assert ChatRequest.model_validate(HELLO).sampling == {}


def test_the_newer_name_of_the_limit_goes_first() -> None:
    both = {**HELLO, "max_tokens": 5, "max_completion_tokens": 7}
    assert ChatRequest.model_validate(both).limit == 7
    assert ChatRequest.model_validate({**HELLO, "max_tokens": 5}).limit == 5


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*ChatRequest.model_fields]), _JSON, max_size=4))
def test_whatever_comes_is_taken_or_refused(fields: dict[str, Any]) -> None:
    """Any other exception is a fault of ours."""
    with contextlib.suppress(pytest.fail.Exception):  # it was taken
        assert refusal({**HELLO, **fields}).status == 400
