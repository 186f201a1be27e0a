"""Markdown as it streams: every character stays, in order, and marks mean what they should."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtp_cli.chat.colours import RESET, code, highlighted
from mtp_cli.chat.fences import Fences, code_blocks
from mtp_cli.chat.markdown import Markdown, Run


def styled(text: str, cuts: tuple[int, ...] = ()) -> list[Run]:
    """In pieces that are cut anywhere; runs of one style are joined."""
    markdown = Markdown(highlighted)
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    runs = [
        run for a, b in itertools.pairwise(places) for run in markdown.feed(text[a:b])
    ] + markdown.flush()
    joined = itertools.groupby(runs, key=lambda run: run.style)
    return [Run("".join(run.text for run in group), style) for style, group in joined]


def in_style(text: str, style: str) -> list[str]:
    return [run.text for run in styled(text) if style in run.style.split()]


pieces = st.sampled_from(
    [
        *"*_`~#>-|\\()[] \n\t1.é日",
        "**",
        "```",
        "~~~",
        "```python\n",
        "def f():",
        '"""',
        "word",
        "](a_b)",
    ]
)
texts = st.lists(pieces, max_size=40).map("".join)
cuts = st.lists(st.integers(0, 200), max_size=8).map(tuple)


@given(texts, cuts)
def test_every_character_stays_however_the_text_is_cut(text: str, at: tuple[int, ...]) -> None:
    runs = styled(text, at)
    assert "".join(run.text for run in runs) == text
    assert runs == styled(text)


@given(texts, st.integers(0, 200))
@example("```python\n*\n", 10)  # the rest of a line of code: marks mean nothing there
def test_a_line_can_be_broken_off_anywhere(text: str, at: int) -> None:
    markdown = Markdown(highlighted)
    begun, rest = text[: at % (len(text) + 1)], text[at % (len(text) + 1) :]
    runs = [*markdown.feed(begun), *markdown.flush()]
    assert "".join(run.text for run in runs) == begun
    runs = [*markdown.feed(rest), *markdown.flush()]
    assert "".join(run.text for run in runs) == rest


@pytest.mark.parametrize(
    ("text", "style", "found"),
    [
        ("a **bold one** b", "bold", ["bold one"]),
        ("a __bold__ b", "bold", ["bold"]),
        ("这是**重点**内容", "bold", ["重点"]),
        ("an *em* and _em_", "italic", ["em", "em"]),
        ("***both***", "italic", ["both"]),
        ("~~gone~~", "strike", ["gone"]),
        ("`a * b * c`", "cyan", ["a * b * c"]),
        ("``a ` b``", "cyan", ["a ` b"]),
        ("snake_case_name and __init__.py", "italic", []),
        ("2 * 3 * 4, 2*3*4, f(*args)", "italic", ["args)"]),
        (r"\*not\* this", "italic", []),
        ("**unclosed\nnext", "bold", ["unclosed"]),
        ("# Title", "bold", [" Title"]),
        ("#hashtag", "bold", []),
        ("- one\n  * two\n3. three", "cyan", ["-", "*", "3."]),
        ("1.5 is no item", "cyan", []),
        ("[a](http://x/_y_z_)", "dim", ["(http://x/_y_z_)"]),
        ("| a | `|` |", "cyan", ["|"]),
        ("---\n", "dim", ["---"]),
        ("> said", "dim", ["> "]),
    ],
)
def test_marks_mean_what_they_mean_in_commonmark(text: str, style: str, found: list[str]) -> None:
    assert in_style(text, style) == found


def test_code_is_in_its_languages_colours_line_by_line() -> None:
    text = '```python\ndef f():\n    """two\n    lines"""\n```\ndef g'
    assert in_style(text, "magenta") == ["def"]
    assert in_style(text, "green") == ['"""two', '    lines"""']
    assert in_style("```\ndef f():\n```", "magenta") == []
    assert in_style("```no-such-language\ndef\n```", "magenta") == []


def test_a_line_of_code_is_shown_once_it_is_whole() -> None:
    markdown = Markdown(highlighted)
    assert "".join(run.text for run in markdown.feed("```c\nint x")) == "```c\n"
    assert "".join(run.text for run in markdown.feed(" = 1;\n}")) == "int x = 1;\n"
    assert "".join(run.text for run in markdown.flush()) == "}"


def test_a_fence_ends_with_one_as_long() -> None:
    text = "````md\n```python\nx\n```\n````\n~~~\ny\n```\n~~~ no\n~~~"
    assert code_blocks(text) == ["```python\nx\n```\n", "y\n```\n~~~ no\n"]
    assert code_blocks("a ```x``` b\n```x```") == []
    assert code_blocks("```\nwithout an end") == ["without an end\n"]


def test_fences_know_the_language() -> None:
    fences = Fences()
    assert fences.end_line("  ```python title=x")
    assert (fences.is_open, fences.info) == (True, "python title=x")


def test_codes_are_those_of_the_terminals_own_colours() -> None:
    assert code("bold green") == "\x1b[1;32m"
    assert code("") == ""
    assert RESET == "\x1b[0m"
