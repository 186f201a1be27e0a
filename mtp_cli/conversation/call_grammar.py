"""Which texts are calls of a conversation's tools, in the form that its template writes them in.

A call that the template wrote of words of our own is cut where they stand; what lies between is
the form. Two calls tell what comes between calls. Arguments keep to the tool's JSON schema. Knows
templates by what they wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtp_cli.conversation import tools
from mtp_cli.conversation.calls import Schemas
from mtp_cli.conversation.tools import Calling
from mtp_cli.errors import MtpError

if TYPE_CHECKING:  # they load llguidance
    from mtp_cli.engine.grammar.parts import Parts
    from mtp_cli.engine.grammar.source import Grammar

_ARGUMENTS = re.compile(rf'\{{\s*"{tools.KEY}"\s*:\s*"{tools.VALUE}"\s*\}}')
_TAG = re.compile(r"</?\w[^<>\s=]*[>=]")
_CLOSER = re.compile(r"\s*</[^<>]+>")
# What says nothing of which texts are right, and how a text without quotes can be kept to.
_NOTES = {"type", "title", "description", "default", "examples", "deprecated"}
_CHOICES = {"enum", "const"}
_DEFINITIONS = ("$defs", "definitions")
_KIND = "tools"


@dataclass(frozen=True)
class _Tagged:
    """How arguments are written where each has tags of its own.

    opened, named, closed: before an argument's name, between it and the value, and after that
    between: two arguments
    tags:    all that a call has, none of which a value can have in it
    """

    opened: str
    named: str
    closed: str
    between: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class _Form:
    """A call, cut where name and arguments stand.

    tagged: None for arguments that are one JSON object
    between: from one call's arguments to the next one's name; None where there is one call only
    """

    before_name: str
    before_arguments: str
    after: str
    tagged: _Tagged | None
    between: str | None


def calls_alone(
    calling: Calling,
    schemas: Schemas,
    parts: Parts,
    *,
    at_most_one: bool = False,
    or_json: Mapping[str, Any] | None = None,
) -> Grammar:
    """One call or several, of these tools; MtpError where the form is not known.

    or_json: a schema, whose JSON may be the answer instead
    """
    form = _form(calling)
    if form is None:
        raise MtpError("the format in which the model's chat template writes calls is unknown")
    call = parts.one_of([_call(form, name, schema, parts) for name, schema in schemas.items()])
    calls = f"{_text(form.before_name, parts)} {call}"
    if form.between is not None and not at_most_one:
        calls += f" ({_text(form.between, parts)} {call})*"
    calls += f" {_text(form.after, parts)}"
    if or_json is not None:
        calls = parts.one_of([calls, parts.json(or_json)])
    return parts.grammar(calls, _KIND)


def _call(form: _Form, name: str, schema: Mapping[str, Any], parts: Parts) -> str:
    """From its name to its arguments' end."""
    schema = {"type": "object", **schema}
    if form.tagged is None:
        arguments = parts.json(schema)
    else:
        arguments = " ".join(_tagged_arguments(form.tagged, schema, parts)) or '""'
    return f"{parts.text(name)} {_text(form.before_arguments, parts)} {arguments}"


def _tagged_arguments(form: _Tagged, schema: Mapping[str, Any], parts: Parts) -> Iterator[str]:
    required = schema.get("required", ())
    shared = {name: schema[name] for name in _DEFINITIONS if name in schema}
    for name, wanted in schema.get("properties", {}).items():
        if not isinstance(wanted, Mapping):
            raise MtpError(f"the schema of the argument {name} is no object")
        value = _value(form, name, wanted, shared, parts)
        opened = parts.text(form.opened + name + form.named)
        one = f"{opened} {value} {parts.text(form.between)}"
        yield one if name in required else f"({one})?"


def _value(
    form: _Tagged, name: str, wanted: Mapping[str, Any], shared: Mapping[str, Any], parts: Parts
) -> str:
    """A value and its closing tag; texts stand there without quotes."""
    if wanted.get("type") != "string":
        return f"{parts.json({**wanted, **shared})} {parts.text(form.closed)}"
    if not set(wanted) <= _NOTES | _CHOICES:
        keyword = min(set(wanted) - _NOTES - _CHOICES)
        raise MtpError(f"{keyword} of the argument {name} cannot be kept to in the model's format")
    choices = wanted.get("enum", [wanted["const"]] if "const" in wanted else None)
    if choices is None:
        return parts.until(form.closed, form.tags)
    texts = [parts.text(str(choice)) for choice in choices]
    return f"{parts.one_of(texts)} {parts.text(form.closed)}"


def _text(text: str, parts: Parts) -> str:
    """Exactly this, but for a call's id, which may be any."""
    pieces = [parts.text(piece) for piece in text.split(tools.ID)]
    return f" {parts.identifier()} ".join(pieces)


def _form(calling: Calling) -> _Form | None:
    """None where calls are not read, or the template writes none."""
    start = _start(calling, calling.written)
    if start is None:
        return None
    before_name, found, rest = calling.written[start:].partition(tools.NAME)
    cut = _cut(before_name, rest) if found else None
    if cut is None:
        return None
    before_arguments, after, tagged = cut
    between = _between(calling, rest, after)
    return _Form(before_name, before_arguments, after.rstrip(), tagged, between)


def _start(calling: Calling, written: str) -> int | None:
    """Where the first call begins."""
    if calling.is_bare:
        begun = re.search(r"[\[{]", written)
        return begun.start() if begun else None
    places = [written.find(mark) for mark in calling.marks]
    return min((place for place in places if place >= 0), default=None)


def _cut(before_name: str, rest: str) -> tuple[str, str, _Tagged | None] | None:
    """What follows a call's name: before and after its arguments, and how they are written."""
    arguments = _ARGUMENTS.search(rest)
    if arguments:
        return rest[: arguments.start()], rest[arguments.end() :], None
    head, has_key, tail = rest.partition(tools.KEY)
    named, has_value, tail = tail.partition(tools.VALUE)
    closer = _CLOSER.match(tail)
    at = head.rfind("<")
    if not (has_key and has_value and closer and at >= 0):
        return None
    after = tail[closer.end() :]
    between = after[: len(after) - len(after.lstrip())]
    tags = tuple(dict.fromkeys(_TAG.findall(before_name + rest)))
    return head[:at], after.lstrip(), _Tagged(head[at:], named, closer[0], between, tags)


def _between(calling: Calling, rest: str, after: str) -> str | None:
    """From a call's arguments to the next one's name, where the template writes two as one."""
    _before, found, second = calling.twice.partition(tools.NAME)
    between, has_second, _rest = second.partition(tools.OTHER_NAME)
    begun = rest[: len(rest) - len(after)]
    if not (found and has_second and between.startswith(begun)):
        return None
    return between[len(begun) :]
