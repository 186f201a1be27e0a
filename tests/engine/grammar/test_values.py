"""What is left of a value, by the text that it is taken from."""

from __future__ import annotations

import pytest

from mtp_cli.engine.grammar.values import Rest, Values

TEXT = (
    b"Alice Miller, 34, works as a nurse in Dublin. Write to her at alice.miller@example.org or "
    b"call 555-0134. The fee is 12.50, for 3400 people."
)
NUMBER = (b",", b"}", b"]")


def rest(*said: bytes) -> Rest | None:
    values = Values()
    values.read(TEXT)
    found = None
    for part in said:
        values.say(part)
        found = values.rest()
    return found


@pytest.mark.parametrize(
    ("said", "text", "is_clear"),
    [
        (b'{"name": "Alice', b" Miller", True),
        (b'{"name": "Ali', b"ce Miller", True),
        (b'{"name": "Alice Miller', b"", True),
        (b'{"job": "N', b"urse in Dublin", True),  # as the text has it, whatever its case
        (b'{"mail": "alice.', b"miller@example.org or call 555-0134", True),
        (b'{"phone": "5', b"55-0134", True),
    ],
)
def test_a_text_goes_on_as_its_source_does(said: bytes, text: bytes, is_clear: bool) -> None:
    begun = said.rpartition(b'"')[2]
    assert rest(said) == Rest(text, len(begun), is_clear, (b'"',))


@pytest.mark.parametrize(("said", "text"), [(b"3", b"4"), (b"12", b".50"), (b"34", b"")])
def test_a_number_goes_on_with_digits(said: bytes, text: bytes) -> None:
    assert rest(b'{"n": ' + said) == Rest(text, len(said), True, NUMBER)


def test_the_next_place_behind_the_last_value_comes_first() -> None:
    values = Values()
    values.read(b"lamp at 2900 euros, desk at 2100 euros")
    values.say(b'{"first": "lamp')
    assert values.rest() == Rest(b" at 2900 euros", 4, True, (b'"',))
    values.say(b'", "second": "desk')
    values.rest()
    values.say(b'", "price": 2')
    assert values.rest() == Rest(b"100", 1, True, NUMBER)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b'{"name": "',  # nothing of it is there
        b'{"name": "Bob',  # no word begins so
        b'{"name": "lice',
        b'{"name": "Alice"',  # closed
        b'{"is": tr',
        b'{"name": "\\"Alice',  # not what stands there
    ],
)
def test_nothing_is_left_where_nothing_begins_so(said: bytes) -> None:
    assert rest(said) is None


def test_an_escaped_quote_closes_nothing() -> None:
    assert rest(b'{"say": "\\"', b'", "name": "Alice') == Rest(b" Miller", 5, True, (b'"',))


def test_a_control_token_ends_a_value() -> None:
    values = Values()
    values.read(b"the nurse in Dublin\xff<|im_end|>")
    values.say(b'"nurse')
    assert values.rest() == Rest(b" in Dublin", 5, True, (b'"',))
