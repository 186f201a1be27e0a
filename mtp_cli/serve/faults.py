"""The API's error objects. Knows which kinds there are and nothing of where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

_MAX_MESSAGE = 500  # characters: what was sent may be quoted in it


class ApiError(Exception):
    """What is told to a client in place of an answer.

    status: HTTP's; param: the field that is at fault; code: for programs
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind

    def body(self) -> dict[str, Any]:
        """The object as the API has it."""
        return {
            "error": {
                "message": self.message[:_MAX_MESSAGE],
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def unsupported(param: str, why: str) -> ApiError:
    """A field of the API that is known and not served."""
    return ApiError(400, f"{param}: {why}", param=param, code="unsupported_parameter")


def invalid(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}", param=param, code="invalid_value")


def overloaded(message: str) -> ApiError:
    return ApiError(503, message, code="overloaded", kind="server_error")


def internal() -> ApiError:
    """A fault of ours: what it was goes to stderr and not to a client."""
    return ApiError(500, "the server failed to answer", code="internal", kind="server_error")


_CODES = {"missing": "missing_required_parameter", "json_invalid": "invalid_json"}


def of_validation(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a request."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind = first["type"]
    param = _path(first["loc"])
    message = first["msg"]
    if kind == "json_invalid":
        return ApiError(400, f"the body is no JSON: {message}", code=_CODES[kind])
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code=code)


def _path(location: Sequence[int | str]) -> str | None:
    """As the API names fields: messages[0].role; what is no field is left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier():
            path += f".{part}" if path else part
    return path or None
