"""Chat templates: messages in, prompt text out, rendered the way Hugging Face does.

Owns the Jinja2 environment. Knows nothing of token ids. A template comes with a model file, from
anywhere, so it runs in Jinja2's immutable sandbox and within bounds: it can loop and format, but
neither reach out nor go on for ever.

Follows `_compile_jinja_template` in transformers' chat_template_utils.py: trimmed blocks, loop
controls, `raise_exception`, `strftime_now`, a `tojson` that does not escape HTML, and the
`generation` tag, which only training uses, passed through.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import jinja2
import jinja2.ext

from mtp_cli.conversation.bounded import BoundedEnvironment, Budget, TooMuchError
from mtp_cli.conversation.faults import RefusalError, fault, malformed
from mtp_cli.errors import MtpError

MAX_CHARACTERS = 250_000  # ten times the longest one known; as many take a second to compile
_WAYS = "--chat-template gives another, --raw does without"

Role = Literal["system", "user", "assistant", "tool"]

GIVEN = frozenset(("messages", "add_generation_prompt", "bos_token", "eos_token"))
"""The variables that a conversation itself gives to a template."""


class _Turn(TypedDict):
    role: Role
    content: str


class Message(_Turn, total=False):
    """One turn. reasoning: what an assistant thought before it said its content.

    more: its other fields, as they go to the template, such as `tool_calls`
    """

    reasoning: str
    more: dict[str, Any]


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
        if len(source) > MAX_CHARACTERS:
            raise MtpError(
                f"the chat template is longer than the {MAX_CHARACTERS:,} characters that are "
                f"read ({_WAYS})"
            )
        self._environment = BoundedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        self._environment.filters["tojson"] = self._environment.bounded("tojson", _to_json)
        self._environment.globals["raise_exception"] = _raise_exception
        self._environment.globals["strftime_now"] = _strftime_now
        try:
            self._template, parsed = self._environment.template(source)
        except Exception as error:  # Jinja2's, and Python's own of the code that it makes
            raise MtpError(f"the chat template {malformed(error)} ({_WAYS})") from error
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
        self._runaway: str | None = None

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text up to where the assistant speaks; MtpError when the template refuses."""
        return self.apply([dict(message) for message in messages], tools=None, documents=None)

    def apply(
        self, messages: Sequence[Mapping[str, Any]], *, answering: bool = True, **variables: Any
    ) -> str:
        """`messages` as they are; MtpError when the template refuses.

        answering: whether the prompt goes on to where the assistant speaks
        """
        if self._runaway is not None:  # each try of it would last as long
            raise MtpError(self._runaway)
        given = {
            "messages": messages,
            "add_generation_prompt": answering,
            "bos_token": self._bos,
            "eos_token": self._eos,
        }
        try:
            return self._environment.rendered(
                self._template, {**variables, **given}, Budget(messages)
            )
        except TooMuchError as error:
            self._runaway = f"the chat template {fault(error, self.names)}"
            raise MtpError(self._runaway) from error
        except Exception as error:  # what a template's own expressions raise, not a bug of ours
            raise MtpError(f"the chat template {fault(error, self.names)}") from error


def _raise_exception(message: object) -> None:
    raise RefusalError(" ".join(str(message).split()))


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
