"""Grammars as people write them: a JSON schema, or GBNF as llama.cpp has it.

Owns what is said of a wrong one. llguidance reads both; nothing here knows a model.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from mtp_cli.errors import MtpError, json_fault

# One way to write each value: with free white space hardly a byte is forced, and it may never end.
# As Python's json.dumps and most JSON on one line has it.
LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)
# Texts, classes of characters and comments, in which nothing is a rule's name or a dot.
_LITERAL = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)
_ANY, _ANY_LINE = ".", '(. | "\\n")'  # a dot is no line break in llguidance's form
_START = re.compile(r"(?<![\w-])start(?![\w-])")  # the name that its converter gives to `root`
_NOT_FOUND = re.compile(r"Rule '([\w-]+)' not found")
_LONGEST = 160  # characters of a library's own words on a line


@dataclass(frozen=True)
class Grammar:
    """text: in llguidance's form; kind: for people, "schema" or "grammar"."""

    text: str
    kind: str


def json_schema(schema: str | dict[str, Any], file: str = "") -> Grammar:
    """The JSON texts, on one line each, that are valid under a schema.

    schema: JSON, or what it says; file: that it comes from

    Raises MtpError where it is no JSON, no schema, or one that cannot be kept to.
    """
    name = f"{file}: " if file else ""
    read = _parsed(schema, name) if isinstance(schema, str) else schema
    if not isinstance(read, dict):
        raise MtpError(f"{name}the JSON schema is no object: {{}} would allow any JSON")
    refusal = f"{name}the JSON schema cannot be followed"
    try:
        text = LLMatcher.grammar_from_json_schema(json.dumps(read), overrides=LAYOUT)
    except ValueError as error:
        raise MtpError(f"{refusal}: {_shortened(str(error))}") from error
    return checked(Grammar(text, "schema"), refusal)


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MtpError(f"{name}the JSON schema is {json_fault(error)}") from error


def gbnf(text: str, file: str = "") -> Grammar:
    """The texts of a grammar in GBNF, whose first rule is `root`.

    file: that it comes from

    Raises MtpError, which says the line where it is wrong.
    """
    name = f"{file}: " if file else ""
    converted = _ESCAPE.sub(_unescaped, _as_converted(text))
    try:
        lark = gbnf_to_lark(converted)
    except GbnfToLarkError as error:
        what = str(error).partition(" at line ")[0]
        line = converted.count("\n", 0, error.pos.pos) + 1
        raise MtpError(f"{name}the grammar is wrong at line {line}: {_lower(what)}") from error
    except RecursionError as error:
        raise MtpError(f"{name}the grammar is nested too deeply") from error
    except IndexError as error:
        raise MtpError(f"{name}the grammar is wrong: it ends in the middle") from error
    except Exception as error:  # the converter raises bare ones for names
        raise MtpError(f"{name}the grammar is wrong{_place(text, str(error))}") from error
    grammar = Grammar(LLMatcher.grammar_from_lark(lark), "grammar")
    return checked(grammar, f"{name}the grammar is refused")


def _as_converted(text: str) -> str:
    """The same grammar in words that the converter does not take for others."""
    free = "start-rule"
    while free in text:
        free += "0"
    parts, end = [], 0
    for literal in [*_LITERAL.finditer(text), None]:
        between = text[end : literal.start() if literal else len(text)]
        parts.append(_START.sub(free, between.replace(_ANY, _ANY_LINE)))
        if literal:
            parts.append(literal[0])
            end = literal.end()
    return "".join(parts)


def _unescaped(found: re.Match[str]) -> str:
    r"""\u and \U as the character itself: the converter gets them wrong."""
    code = found[1] or found[2]
    if code is None or int(code, 16) > 0x10FFFF or 0xD800 <= int(code, 16) < 0xE000:
        return found[0]
    char = chr(int(code, 16))
    if char in '"\\[]-^' or not char.isprintable():
        return f"\\x{int(code, 16):02x}" if int(code, 16) < 0x100 else char
    return char


def _place(text: str, what: str) -> str:
    missing = _NOT_FOUND.search(what)
    if missing is None:
        return ": it has no rule named root" if "root" in what else f": {_lower(_shortened(what))}"
    name = re.escape(missing[1])
    at = re.search(rf"(?<![\w-]){name}(?![\w-])", text)
    line = text.count("\n", 0, at.start()) + 1 if at else 1
    return f" at line {line}: there is no rule {missing[1]}"


def checked(grammar: Grammar, refusal: str) -> Grammar:
    """The same; MtpError where llguidance does not take it."""
    is_wrong, said = LLMatcher.validate_grammar_with_warnings(grammar.text)
    if is_wrong:
        raise MtpError(f"{refusal}: {_shortened(said[0])}")
    return grammar


def _shortened(said: str) -> str:
    """llguidance's own words as part of a line: of several lines the one that names the fault."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    line = named[0] if named else lines[0] if lines else "it gives no reason"
    line = re.sub(r"^\d+\(\d+\): ", "", line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
