"""Schemas and grammars as people write them, right and wrong."""

from __future__ import annotations

from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from mtp_cli.engine.grammar.source import Grammar, gbnf, json_schema
from mtp_cli.errors import MtpError


@pytest.mark.parametrize("schema", ["{}", '{"type": "object"}', {"enum": ["a", 1, None]}])
def test_a_schema_as_json_or_as_what_it_says(schema: str | dict[str, Any]) -> None:
    assert json_schema(schema).kind == "schema"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{nope", "the JSON schema is not valid JSON at line 1, column 2"),
        ("[" * 100_000, "the JSON schema is not valid JSON"),
        ("[1]", "the JSON schema is no object: {} would allow any JSON"),
        ("true", "the JSON schema is no object: {} would allow any JSON"),
        ('{"type": "objekt"}', "the JSON schema cannot be followed: Invalid type: objekt"),
        ('{"if": {}}', 'the JSON schema cannot be followed: Unimplemented keys: ["if"]'),
        (
            '{"type": "string", "pattern": "(?=a)b"}',
            "the JSON schema cannot be followed: look-around, including look-ahead and "
            "look-behind, is not supported",
        ),
        (
            '{"type": "integer", "minimum": 5, "maximum": 3}',
            "the JSON schema cannot be followed: Unsatisfiable schema: minimum (5) is greater "
            "than maximum (3)",
        ),
    ],
)
def test_a_wrong_schema_is_one_line(schema: str, said: str) -> None:
    with pytest.raises(MtpError) as raised:
        json_schema(schema)
    assert str(raised.value) == said


def test_a_long_reason_is_cut() -> None:
    with pytest.raises(MtpError) as raised:
        json_schema({"type": "x" * 1000})
    assert len(str(raised.value)) < 220
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the grammar is wrong: it has no rule named root"),
        ('other ::= "a"', "the grammar is wrong: it has no rule named root"),
        ('root ::= "a"\nx = 3', "the grammar is wrong at line 2: expected ::="),
        ('root ::= "a"\n\nx ::= baz', "the grammar is wrong at line 3: there is no rule baz"),
        ('root ::= "a', "the grammar is wrong at line 1: unexpected end of input"),
        ("root ::= [a-", "the grammar is wrong at line 1: unexpected end of input"),
        ('root ::= "a"\n  | ("b"', "the grammar is wrong at line 2: expected name"),
        ('root ::= "a\\', "the grammar is wrong: it ends in the middle"),
        ("root ::= " + "(" * 5000, "the grammar is nested too deeply"),
    ],
)
def test_a_wrong_grammar_says_its_line(text: str, said: str) -> None:
    with pytest.raises(MtpError) as raised:
        gbnf(text)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    "text",
    [
        'root ::= "yes" | "no"\n',
        'root ::= item ("," ws item)* # a list\nws ::= [ \\t\\n]*\nitem ::= [a-z]{2,4}\n',
        'root ::= "\\u00e9\\u0022\\\\u" [\\u0041-\\u005a] [\\u0009]\n',
        'root ::= [^"\\\\\\x7F\\x00-\\x1F]+\n',
    ],
)
def test_a_right_grammar(text: str) -> None:
    assert isinstance(gbnf(text), Grammar)


def accepts(grammar: str, text: str) -> bool:
    matcher = LLMatcher(LLTokenizer("byte"), gbnf(grammar).text, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = list(text.encode())
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


@pytest.mark.parametrize(
    ("grammar", "text", "is_one"),
    [
        ('root ::= "a" . "b"', "a\nb", True),
        ('root ::= "a" . "b"', "axb", True),
        ('root ::= "a" . "b"', "ab", False),
        ('root ::= "a.b" [.] # a dot.', "a.b.", True),
        ('root ::= "a.b" [.] # a dot.', "axb.", False),
        (r'root ::= "caf\u00e9"', "caf\u00e9", True),
        ('root ::= start start-rule\nstart ::= "a"\nstart-rule ::= "start"', "astart", True),
        ('root ::= restart\nrestart ::= "r"', "r", True),
    ],
)
def test_a_grammar_means_what_it_means_in_llama_cpp(grammar: str, text: str, is_one: bool) -> None:
    assert accepts(grammar, text) == is_one


def test_a_mistake_behind_what_was_replaced_is_named_with_its_line() -> None:
    with pytest.raises(MtpError, match="at line 3"):
        gbnf('root ::= . . . . . start\nstart ::= "a"\nother ::= )\n')
