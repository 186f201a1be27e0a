"""Calls of tools, read back out of what a model said.

Knows the syntaxes that models write calls in, as text. Which of them a model uses is told by the
mark that its calls begin with; what follows tells the rest:

    JSON         {"name": "f", "arguments": {"a": 1}}, alone, in a list or between marks
    named JSON   f<mark>{"a": 1}
    tags         <function=f><parameter=a>1</parameter></function>
    pairs        f<arg_key>a</arg_key><arg_value>1</arg_value>
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtp_cli.conversation.stops import StopScanner

_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters", "args")
_FUNCTION = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|(?=<function=)|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_PAIRED = re.compile(r"([\w.\-]+)\s*((?:<arg_key>.*?</arg_value>\s*)+)", re.DOTALL)
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_MARK = re.compile(r"<[^<>]*>|\[[A-Z_]+\]|```(?:json)?")
_NAMED = re.compile(r"(?:functions\.)?([\w.\-]+)(?::\d+)?\s*\Z")
_IDENTIFIED = re.compile(r"\[CALL_ID\]\s*\w+")  # the model's own name for a call
_MAX_NAME = 200  # characters looked back for a name

Schemas = Mapping[str, Mapping[str, Any]]
"""The JSON schema of each tool's arguments, by the tool's name."""


@dataclass(frozen=True)
class Call:
    """arguments: a JSON object, as text"""

    name: str
    arguments: str


class CallScanner:
    """Passes text on, up to where calls begin, while it comes in.

    marks:   what calls begin with
    is_bare: calls are JSON without any mark, and begin the answer
    """

    def __init__(self, marks: Sequence[str], *, is_bare: bool) -> None:
        self._scanner = StopScanner(marks)
        self._may_be_bare = is_bare
        self._margin = ""
        self._called: str | None = None

    def feed(self, text: str) -> str:
        """What is certain to be no call."""
        if self._called is not None:
            self._called += text
            return ""
        if self._may_be_bare:
            text = self._margin + text
            self._margin = text if not text.strip() else ""
            if self._margin:
                return ""
            self._may_be_bare = False
            if text.lstrip().startswith("{"):
                self._called = text
                return ""
        passed = self._scanner.feed(text)
        if self._scanner.found is not None:
            self._called = self._scanner.held
        return passed

    def finish(self, schemas: Schemas) -> tuple[str, list[Call]]:
        """What was held back and is text after all, and the calls; the answer has ended."""
        if self._called is None:
            return self._margin + self._scanner.rest(), []
        calls = read(self._called, schemas)
        return ("", calls) if calls else (self._called, [])


def read(text: str, schemas: Schemas) -> list[Call]:
    """The calls in a text, in whichever syntax it is; none where it is in no known one."""
    for syntax in (_tagged, _paired, _named_inside, _named_before):
        calls = [call for call in syntax(text, schemas) if call.name]
        if calls:
            return calls
    return []


def _tagged(text: str, schemas: Schemas) -> Iterator[Call]:
    for name, body in _FUNCTION.findall(text):
        if not _PARAMETER.search(body) and body.strip().startswith("{"):
            yield from (Call(name, _dumped(value)) for _at, value in _objects(body))
            continue
        pairs = [(key, value.removeprefix("\n").removesuffix("\n")) for key, value in
                 _PARAMETER.findall(body)]  # fmt: skip
        yield Call(name, _dumped(_typed(pairs, schemas.get(name, {}))))


def _paired(text: str, schemas: Schemas) -> Iterator[Call]:
    for name, body in _PAIRED.findall(text):
        yield Call(name, _dumped(_typed(_PAIR.findall(body), schemas.get(name, {}))))


def _named_inside(text: str, _schemas: Schemas) -> Iterator[Call]:
    for _at, value in _objects(text):
        yield from _calls_of(value)


def _calls_of(value: Any) -> Iterator[Call]:
    """The calls that a JSON value is or lists."""
    if isinstance(value, list):
        for item in value:
            yield from _calls_of(item)
        return
    if not isinstance(value, dict):
        return
    if isinstance(value.get("function"), dict):
        yield from _calls_of(value["function"])
        return
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    given = next((value[key] for key in _ARGUMENTS if key in value), None)
    if name is not None and given is not None:
        yield Call(name, given if isinstance(given, str) else _dumped(given))


def _named_before(text: str, _schemas: Schemas) -> Iterator[Call]:
    end = 0
    for (start, stop), value in _objects(text):
        before = _IDENTIFIED.sub("", text[max(end, start - _MAX_NAME) : start])
        found = _NAMED.search(_MARK.sub(" ", before).rstrip())
        if found and isinstance(value, dict):
            yield Call(found[1], _dumped(value))
        end = stop


def _objects(text: str) -> Iterator[tuple[tuple[int, int], Any]]:
    """The JSON objects and lists in a text, and where each lies."""
    decoder, at = json.JSONDecoder(), 0
    while found := re.compile(r"[{\[]").search(text, at):
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.end()
            continue
        yield (found.start(), at), value


def _typed(pairs: Sequence[tuple[str, str]], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Values as their schema has them: texts stay texts, all else is JSON where it is."""
    properties = schema.get("properties", {})
    typed: dict[str, Any] = {}
    for key, text in pairs:
        wanted = properties.get(key, {}) if isinstance(properties, Mapping) else {}
        typed[key] = text
        if not (isinstance(wanted, Mapping) and wanted.get("type") == "string"):
            try:
                typed[key] = json.loads(text)
            except (ValueError, RecursionError):
                continue
    return typed


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
