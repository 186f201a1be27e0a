"""Chat templates: messages in, prompt text out, rendered the way Hugging Face does.

Owns the Jinja2 environment. Knows nothing of token ids. A template comes with a model file, from
anywhere, so it runs in Jinja2's immutable sandbox: it can loop and format, not reach out.

Follows `_compile_jinja_template` in transformers' chat_template_utils.py: trimmed blocks, loop
controls, `raise_exception`, `strftime_now`, a `tojson` that does not escape HTML, and the
`generation` tag, which only training uses, passed through.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mtp_cli.errors import MtpError

Role = Literal["system", "user", "assistant"]

GIVEN = frozenset(("messages", "add_generation_prompt", "bos_token", "eos_token"))
"""The variables that a conversation itself gives to a template."""


class _Turn(TypedDict):
    role: Role
    content: str


class Message(_Turn, total=False):
    """One turn. reasoning: what an assistant thought before it said its content."""

    reasoning: str


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks what a model is trained on; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template.

    source: its text
    names:  every variable that it reads, its own among them
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile; MtpError when the template itself is malformed."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
            parsed = environment.parse(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise MtpError(
                "the chat template is malformed (--chat-template gives another, --raw does "
                f"without): {_one_line(error)}"
            ) from error
        self.source = source
        self.names = frozenset(
            name.name for name in parsed.find_all(jinja2.nodes.Name) if name.ctx == "load"
        )
        self.constants = frozenset(
            const.value
            for const in parsed.find_all(jinja2.nodes.Const)
            if isinstance(const.value, str)
        )
        self._bos, self._eos = bos, eos

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text up to where the assistant speaks; MtpError when the template refuses."""
        return self.apply([dict(message) for message in messages], tools=None, documents=None)

    def apply(
        self, messages: Sequence[Mapping[str, Any]], *, answering: bool = True, **variables: Any
    ) -> str:
        """`messages` as they are; MtpError when the template refuses.

        answering: whether the prompt goes on to where the assistant speaks
        """
        given = {
            "messages": messages,
            "add_generation_prompt": answering,
            "bos_token": self._bos,
            "eos_token": self._eos,
        }
        try:
            return self._template.render({**variables, **given})
        except jinja2.UndefinedError as error:
            missing = re.fullmatch(r"'(\w+)' is undefined", str(error))
            if missing is None or missing[1] not in self.names:
                raise MtpError(f"the chat template fails: {_one_line(error)}") from error
            raise MtpError(
                f"the chat template needs a variable {missing[1]}: give it as "
                f"--template-var {missing[1]}=VALUE"
            ) from error
        except jinja2.TemplateError as error:
            raise MtpError(f"the chat template refuses: {_one_line(error)}") from error
        except Exception as error:  # what a template's own expressions raise, not a bug of ours
            raise MtpError(f"the chat template fails: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
