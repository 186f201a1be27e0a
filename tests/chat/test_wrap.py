"""Word wrap: the words and their order stay, lines fit, code keeps its lines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from mtp_cli.chat.wrap import WordWrap


def wrapped(text: str, columns: int, cuts: tuple[int, ...] = ()) -> str:
    wrap = WordWrap(lambda: columns)
    places = [0, *sorted(c % (len(text) + 1) for c in cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(places)]
    return "".join(wrap.feed(part) for part in parts) + wrap.flush()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the sky is blue", "the sky is\nblue"),
        ("the sky is", "the sky is"),
        ("a\n\n  - indented item", "a\n\n  -\nindented\nitem"),
        ("unbreakablelong word", "unbreakablelong word"),
        ("```\nx = 1 + 2 + 3\n```\nthe sky is blue", "```\nx = 1 + 2 + 3\n```\nthe sky is\nblue"),
        ("日本語の長い文章です", "日本語の長\nい文章です"),
    ],
)  # fmt: skip
def test_lines_break_between_words(text: str, expected: str) -> None:
    assert wrapped(text, 10) == expected


def test_the_newest_width_counts() -> None:
    columns = 20
    wrap = WordWrap(lambda: columns)
    shown = wrap.feed("one two three ")
    columns = 8
    shown += wrap.feed("four five six ") + wrap.flush()
    assert shown == "one two three\nfour\nfive six"


words = st.text(st.sampled_from("ab é\n日"), max_size=60)


@given(words, st.integers(4, 20), st.lists(st.integers(0, 60), max_size=6))
def test_nothing_is_lost_and_lines_fit(text: str, columns: int, cuts: list[int]) -> None:
    shown = wrapped(text, columns, tuple(cuts))
    assert shown == wrapped(text, columns)
    assert "".join(shown.split()) == "".join(text.split())
    for line in shown.split("\n"):
        if any(wcswidth(word) >= columns for word in line.split()) or line.startswith(" "):
            continue  # a word no line has room for, or an indentation kept as it came
        assert wcswidth(line) <= columns
