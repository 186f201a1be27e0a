"""What may reach a terminal: nothing that it would obey, and one newline at the end."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import sys
import termios
import unicodedata
from collections.abc import Iterator
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.chat.terminal import AnswerStream, Wait, interruptible, silent_keys
from mtp_cli.screen import fold, forget_unwritten, one_line, say, visible

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x9b31m", "\ufffd31m"),
        ("a\rb\r\n", "ab\n"),
        ("tab\tstays\n", "tab\tstays\n"),
        ("\x7f\x00\x08", "␡␀␈"),
        ("\u202eevil\u2066", "\ufffdevil\ufffd"),
        ("ünïcödé 🌧 עברית \u200f", "ünïcödé 🌧 עברית \u200f"),
    ],
)
def test_controls_are_shown_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_nothing_obeyed_is_left_and_nothing_else_is_touched(text: str) -> None:
    assert not _OBEYED.search(visible(text))
    harmless = "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] in "LNPZ")
    assert visible(harmless) == harmless


@given(st.lists(st.text(alphabet="a\n\x1b[é\r", max_size=4), max_size=12))
def test_an_answer_ends_with_one_newline_however_it_is_cut(chunks: list[str]) -> None:
    out = io.StringIO()
    stream = AnswerStream(out)
    for chunk in chunks:
        stream.write(chunk)
    stream.end()
    safe = visible("".join(chunks))
    assert out.getvalue() == (safe.rstrip("\n") + "\n" if safe else "")


def test_an_answer_is_flushed_as_it_comes() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
    AnswerStream(out).write("first")
    assert raw.getvalue() == b"first"


def test_an_error_is_one_safe_line() -> None:
    assert one_line("bad\n  file \x1b[2J") == "bad file ␛[2J"


def test_statistics_stay_on_one_line_where_there_is_no_terminal() -> None:
    assert fold(["x" * 80, "y" * 80], io.StringIO()) == f"{'x' * 80} · {'y' * 80}"


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A pseudo-terminal as programs see it, and the descriptor where its screen can be read."""
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as screen:
        yield screen, reader
    os.close(reader)


def test_a_long_wait_is_announced_and_taken_back(terminal: tuple[TextIO, int]) -> None:
    screen, reader = terminal
    wait = Wait("reading", screen, quiet=False, after_s=0)
    assert "reading …" in os.read(reader, 100).decode()
    wait.end()
    wait.end()
    assert os.read(reader, 100) == b"\r\x1b[K"


@pytest.mark.parametrize(("quiet", "after_s"), [(True, 0), (False, 60)])
def test_a_short_wait_and_a_quiet_one_say_nothing(
    terminal: tuple[TextIO, int], quiet: bool, after_s: float
) -> None:
    screen, reader = terminal
    wait = Wait("reading", screen, quiet=quiet, after_s=after_s)
    wait.end()
    screen.write("answer")
    screen.flush()
    assert os.read(reader, 100) == b"answer"


def test_statistics_break_between_parts_where_a_terminal_is_narrow(
    terminal: tuple[TextIO, int],
) -> None:
    screen, _reader = terminal
    fcntl.ioctl(screen.fileno(), termios.TIOCSWINSZ, struct.pack("4H", 24, 20, 0, 0))
    assert fold(["123 tok/s", "answer 12", "prompt 3"], screen) == (
        "123 tok/s\nanswer 12\nprompt 3"
    )


def test_the_first_ctrl_c_stops_and_the_second_insists() -> None:
    stops: list[bool] = []
    before = signal.getsignal(signal.SIGINT)
    with interruptible(lambda: stops.append(True)):
        os.kill(os.getpid(), signal.SIGINT)
        assert stops == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stops == [True]
    assert signal.getsignal(signal.SIGINT) is before


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


def test_keys_can_be_silent_without_a_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it after `<&-`
    with silent_keys():
        pass
