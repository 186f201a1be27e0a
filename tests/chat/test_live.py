"""The line below an answer: there while it comes, gone without a trace, nothing moved by it."""

from __future__ import annotations

import io

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtp_cli.chat.live import LiveLine, column
from mtp_cli.chat.markdown import Markdown, Run
from mtp_cli.chat.terminal import AnswerStream
from mtp_cli.screen import cells

COLUMNS, LINES = 20, 6


class Screen(pyte.HistoryScreen):
    """A wide character that does not fit goes to the next line, as on terminals; pyte's sticks
    out."""

    def draw(self, data: str) -> None:
        for char in data:
            if cells(char) == 2 and self.cursor.x == self.columns - 1:
                self.cursor.x = self.columns
            super().draw(char)


class Terminal(io.StringIO):
    """A terminal of 20 columns and 6 lines that knows what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Screen(COLUMNS, LINES, history=500)
        self._stream = pyte.Stream(self.seen)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    def lines(self) -> list[str]:
        above = ["".join(line[x].data for x in range(COLUMNS)) for line in self.seen.history.top]
        return [line.rstrip() for line in [*above, *self.seen.display]]


@pytest.fixture(autouse=True)
def _window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for module in ("mtp_cli.chat.live", "mtp_cli.chat.terminal"):
        monkeypatch.setattr(f"{module}.width", lambda _stream: COLUMNS)


def shown(chunks: list[str], line: str, terminal: Terminal, *, ends: bool = True) -> list[str]:
    below = LiveLine(lambda: line, terminal, quiet=False)
    markdown = Markdown(lambda lines, language: [Run(lines[-1], "green")])
    stream = AnswerStream(terminal, below.take_back, below.show_below, markdown)
    for chunk in chunks:
        stream.write(chunk)
    if ends:
        below.end()
        stream.end()
        below.end()
    return terminal.lines()


chunks = st.lists(
    st.text(alphabet="ab `*#\n日é", max_size=12) | st.sampled_from(["```\n", "long" * 12, "\t"]),
    max_size=30,
)


@given(chunks)
@example(["`", " ", "long" * 12, "`````````日日"])  # where the window ends, in a word without end
def test_it_leaves_no_trace_and_moves_nothing(said: list[str]) -> None:
    with_line = shown(said, "41 tok/s", Terminal())
    without = shown(said, "", Terminal())
    assert [*filter(None, with_line)] == [*filter(None, without)]
    assert not any("tok/s" in line for line in with_line)


def test_it_is_below_the_text_while_more_comes() -> None:
    lines = shown(["one two ", "three f"], "41 tok/s", Terminal(), ends=False)
    assert lines[:2] == ["one two three", "41 tok/s"]


def test_it_stays_below_where_the_window_ends() -> None:
    said = [f"line {n}\n" for n in range(12)] + ["the last w"]
    lines = shown(said, "41 tok/s", Terminal(), ends=False)
    assert lines[-2:] == ["the last", "41 tok/s"]
    assert lines[-14:-2] == [f"line {n}" for n in range(12)]


def test_it_is_cut_to_the_window() -> None:
    lines = shown(["a b c"], "123456789 " * 4, Terminal(), ends=False)
    assert lines[:3] == ["a b", "123456789 123456789", ""]


def test_it_is_not_shown_in_what_is_no_terminal() -> None:
    out = io.StringIO()
    below = LiveLine(lambda: "41 tok/s", out, quiet=False)
    below.show_below("text")
    below.end()
    assert out.getvalue() == ""


@given(st.text(alphabet="ab\té", max_size=30))
def test_the_cursor_is_where_a_terminal_has_it(line: str) -> None:
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.Stream(screen)
    stream.feed(line)
    assert column(line, COLUMNS) == screen.cursor.x


def test_a_wide_character_does_not_fit_into_the_last_column() -> None:
    assert column("a" * 18 + "日", COLUMNS) == COLUMNS
    assert column("a" * 19 + "日", COLUMNS) == 2
    assert column("a" * 19 + "e\u0301", COLUMNS) == COLUMNS


def test_a_terminal_shows_text_and_line_at_once() -> None:
    written: list[str] = []

    class Written(Terminal):
        def write(self, text: str) -> int:
            written.append(text)
            return super().write(text)

    shown(["one two ", "three f"], "41 tok/s", Written(), ends=False)
    codes = "".join(written)
    assert codes.count("\x1b[?2026h") == codes.count("\x1b[?2026l") == 1
    begun, ended = codes.index("\x1b[?2026h"), codes.index("\x1b[?2026l")
    assert "three" in codes[begun:ended]
