"""`--json-schema`, `--grammar` and `/schema`: from what was typed to a grammar.

Knows files. llguidance loads with the first one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtp_cli.conversation.attached import decoded
from mtp_cli.errors import MtpError, path_fault

if TYPE_CHECKING:
    from mtp_cli.engine.grammar.source import Grammar


def chosen(json_schema: str | None, grammar: str | None) -> Grammar | None:
    """By the two options, of which one at most is given."""
    if json_schema is not None:
        return schema_of(json_schema)
    return None if grammar is None else grammar_of(grammar)


def schema_of(text: str) -> Grammar:
    """Of JSON, or of a file that has some."""
    from mtp_cli.engine.grammar.source import json_schema

    if text.lstrip()[:1] in ("{", "[", ""):
        return json_schema(text)
    return json_schema(_read(text), text)


def grammar_of(name: str) -> Grammar:
    """Of a file in GBNF."""
    from mtp_cli.engine.grammar.source import gbnf

    return gbnf(_read(name), name)


def either_of(text: str) -> Grammar:
    """A file's name tells which of the two it has: GBNF ends in .gbnf."""
    return grammar_of(text) if text.endswith(".gbnf") else schema_of(text)


def _read(name: str) -> str:
    try:
        raw = Path(name).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        raise MtpError(f"{name}: {path_fault(error)}") from error
    return decoded(raw, name)
