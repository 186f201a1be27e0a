"""What the API takes, field by field. Knows nothing of models or of how it is answered.

Fields that are not named here are passed over, as other servers do: clients send many.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mtp_cli.serve.faults import ApiError, invalid, unsupported

MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20
_MAX_NAME = 512
_CHOICES = ("auto", "none", "required")
_INT64 = 2**63


class _Fields(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, protected_namespaces=())


class Part(_Fields):
    """One piece of a content that is a list."""

    type: str
    text: str | None = None


class FunctionCall(_Fields):
    name: str = Field(min_length=1)
    arguments: str = "{}"


class ToolCall(_Fields):
    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Turn(_Fields):
    """One of `messages`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class Function(_Fields):
    name: str = Field(pattern=r"^[a-zA-Z0-9_.\-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class Tool(_Fields):
    type: Literal["function"]
    function: Function


class ResponseFormat(_Fields):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class StreamOptions(_Fields):
    include_usage: bool = False


class Asked(NamedTuple):
    """A grammar in GBNF, or a JSON schema; param: the field that it stands in"""

    param: str
    source: str | dict[str, Any]


class Request(_Fields):
    """What both kinds of request have. None is the server's default everywhere."""

    model: str | None = Field(default=None, max_length=_MAX_NAME)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=-_INT64, lt=2 * _INT64)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    n: int | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = Field(default=None, max_length=_MAX_NAME)
    prompt_cache_key: str | None = Field(default=None, max_length=_MAX_NAME)
    # llama.cpp's
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repeat_penalty: float | None = Field(default=None, ge=0.001, le=1000)
    repeat_last_n: int | None = Field(default=None, ge=0, lt=2**31)
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} texts")
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    def sampling(self) -> dict[str, Any]:
        """What is set of it, under the engine's names."""
        named = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "penalty_freq": self.frequency_penalty,
            "penalty_present": self.presence_penalty,
            "penalty_repeat": self.repeat_penalty,
            "penalty_last_n": self.repeat_last_n,
            "seed": None if self.seed is None else self.seed % (2 * _INT64),
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def grammars(self) -> list[Asked]:
        """What the answer is to be a text of; one at most is served."""
        found: list[Asked] = []
        if self.grammar is not None:
            found.append(Asked("grammar", self.grammar))
        if self.json_schema is not None:
            found.append(Asked("json_schema", self.json_schema))
        return found

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def check(self) -> None:
        """Raise ApiError for what the API knows and is not served here."""
        if self.n not in (None, 1):
            raise unsupported("n", "one answer to a request is served")
        if self.logit_bias:
            raise unsupported("logit_bias", "is not served")
        if len(self.grammars) > 1:
            raise unsupported(self.grammars[1].param, f"{self.grammars[0].param} is there already")


class ChatRequest(Request):
    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = Field(default=None, max_length=32)
    functions: list[Any] | None = None
    function_call: Any = None
    modalities: list[str] | None = None
    # llama.cpp's and vLLM's
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def grammars(self) -> list[Asked]:
        wanted, found = self.response_format, super().grammars
        if wanted is not None and wanted.type == "json_object":
            found.append(Asked("response_format", {"type": "object"}))
        if wanted is not None and wanted.type == "json_schema":
            schema = (wanted.json_schema or {}).get("schema")
            if not isinstance(schema, dict):
                raise invalid("response_format.json_schema.schema", "a JSON schema is needed")
            found.append(Asked("response_format", schema))
        return found

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def n_top(self) -> int | None:
        """Likeliest tokens to list beside each one; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model is told of."""
        return [] if self.tool_choice == "none" else self.tools or []

    @property
    def must_call(self) -> bool:
        return self.tool_choice not in (None, "none", "auto")

    @property
    def callable_tools(self) -> list[Tool]:
        """The offered tools that may be called: the one that is named, or all."""
        named = self._named
        return [tool for tool in self.offered if named is None or tool.function.name == named]

    @property
    def _named(self) -> str | None:
        """The one tool that is to be called; ApiError for what is no choice."""
        choice = self.tool_choice
        if choice is None or isinstance(choice, str):
            return None
        named = choice.get("function") if choice.get("type") == "function" else None
        name = named.get("name") if isinstance(named, dict) else None
        if not isinstance(name, str):
            raise unsupported("tool_choice", '"auto", "none", "required" and a function are served')
        return name

    def _check_choice(self) -> None:
        if isinstance(self.tool_choice, str) and self.tool_choice not in _CHOICES:
            raise invalid("tool_choice", f"is one of {', '.join(_CHOICES)}, or a function")
        if not self.must_call:
            return
        if not self.offered:
            raise invalid("tool_choice", "there are no tools")
        if not self.callable_tools:
            raise invalid("tool_choice", f"there is no tool {self._named}")
        if self.grammars:
            raise invalid("tool_choice", f"{self.grammars[0].param} asks for an answer, not a call")

    def check(self) -> None:
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(
                400, "top_logprobs: needs logprobs to be true", param="top_logprobs",
                code="invalid_value",
            )  # fmt: skip
        self._check_choice()
        if self.functions is not None or self.function_call is not None:
            raise unsupported("functions", "tools have taken its place")
        if self.grammar is not None and self.offered:
            raise unsupported("grammar", "is not served together with tools")
        if self.modalities not in (None, ["text"]):
            raise unsupported("modalities", '"text" is served')


class CompletionRequest(Request):
    prompt: str | list[str] | list[int] | list[list[int]] = ""
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    @property
    def limit(self) -> int | None:
        return self.max_tokens

    @property
    def n_top(self) -> int | None:
        return self.logprobs

    @property
    def only_prompt(self) -> str | list[int]:
        """The one prompt; ApiError where there are several."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            if len(prompt) > 1:
                raise unsupported("prompt", "one prompt in a request is served")
            prompt = prompt[0]
        if isinstance(prompt, str):
            return prompt
        return [token for token in prompt if isinstance(token, int)]

    def check(self) -> None:
        super().check()
        if self.echo:
            raise unsupported("echo", "is not served")
        if self.best_of not in (None, 1):
            raise unsupported("best_of", "one answer to a request is served")
        if self.suffix:
            raise unsupported("suffix", "is not served")
