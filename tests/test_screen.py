"""What may reach a screen: nothing that it would obey, and lines that fit it."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.errors import MtpError
from mtp_cli.screen import are_one, cells, fold, forget_unwritten, one_line, say, say_error, visible
from tests.chat.window import window

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x9b31m", "\ufffd31m"),
        ("a\rb\r\n", "ab\n"),
        ("tab\tstays\n", "tab\tstays\n"),
        ("\x7f\x00\x08", "␡␀␈"),
        ("\u202eevil\u202d", "\ufffdevil\ufffd"),
    ],
)
def test_controls_are_shown_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ünïcödé 🌧 עברית \u200f",
        "\u2067عربي\u2069 (\u2068GGUF\u2069) \u2066ltr\u2069",  # isolates
        "\u202bعربي\u202c \u202aabc\u202c",  # embeddings
        "می\u200cروم",  # a Persian word needs the non-joiner in it
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "❤\ufe0f 👩\u200d💻 1\ufe0f\u20e3",
        "soft\u00adhyphen, word\u2060joiner, zero\u200bwidth, line\u2028break, \ufeffmark",
    ],
)
def test_what_only_shapes_text_passes(text: str) -> None:
    assert visible(text) == text


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_nothing_obeyed_is_left_and_nothing_else_is_touched(text: str) -> None:
    assert not _OBEYED.search(visible(text))
    harmless = "".join(
        c
        for c in text
        if c in "\n\t" or (unicodedata.category(c) != "Cc" and c not in "\u202d\u202e")
    )
    assert visible(harmless) == harmless


@given(st.text(), st.integers(0, 100))
def test_what_is_safe_is_safe_however_it_is_cut(text: str, cut: int) -> None:
    assert visible(text[:cut]) + visible(text[cut:]) == visible(text)


def test_a_note_is_one_safe_line() -> None:
    assert one_line("bad\n  file \x1b[2J") == "bad file ␛[2J"


@pytest.mark.parametrize(
    ("text", "n"),
    [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("👨\u200d👩\u200d👧", 2), ("🇩🇪", 2)],
)
def test_cells_are_what_a_terminal_needs(text: str, n: int) -> None:
    assert cells(text) == n


def test_lines_stay_whole_where_there_is_no_terminal() -> None:
    assert fold(f"{'x' * 80} {'y' * 80}", io.StringIO()) == f"{'x' * 80} {'y' * 80}"


@given(st.lists(st.text("abé日👍", min_size=1, max_size=12), min_size=1), st.integers(2, 60))
def test_folded_lines_fit_and_keep_their_words(words: list[str], columns: int) -> None:
    with window(columns) as narrow:
        lines = fold(" ".join(words), narrow.screen).split("\n")
    assert " ".join(lines).split(" ") == words
    assert all(cells(line) < columns or " " not in line for line in lines)


def test_an_error_breaks_between_words_on_a_terminal_alone() -> None:
    error = MtpError("/models/a.gguf: truncated: expected 4,000,000 bytes, found 12")
    with window(24) as narrow:
        say_error(error, narrow.screen)
        shown = narrow.raw()
    assert shown == ("error: /models/a.gguf:\ntruncated: expected\n4,000,000 bytes, found\n12\n")
    pipe = io.StringIO()
    say_error(error, pipe)
    assert pipe.getvalue() == f"error: {error}\n"


def test_what_stays_unwritten_is_forgotten_and_the_stream_goes_on() -> None:
    with open("/dev/full", "w", encoding="utf-8") as out:
        out.write("lost")
        forget_unwritten(out)
        with pytest.raises(OSError, match="No space left"):
            print("still full", file=out, flush=True)
        forget_unwritten(out)  # or closing the file would fail


def test_a_line_that_cannot_be_said_is_left_unsaid() -> None:
    with open("/dev/full", "w", encoding="utf-8") as err:
        say("12 tok/s", err)


def test_streams_to_one_file_are_one(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, (tmp_path / "other").open("w") as other:
        with os.fdopen(os.dup(log.fileno()), "w") as again:
            assert are_one(log, again)
        assert not are_one(log, other)
        assert not are_one(log, io.StringIO())
