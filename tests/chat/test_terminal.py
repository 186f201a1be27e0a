"""What may reach a terminal: nothing that it would obey, and one newline at the end."""

from __future__ import annotations

import io
import os
import signal
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtp_cli.chat.terminal import AnswerStream, interruptible, silent_keys
from mtp_cli.screen import visible
from tests.chat.window import window

chunks = st.lists(st.text(alphabet="ab \n\x1b[é\r\u202e\u2067日", max_size=4), max_size=12)


@given(chunks)
def test_a_pipe_gets_what_was_said(said: list[str]) -> None:
    out = io.StringIO(newline="")
    stream = AnswerStream(out)
    for chunk in said:
        stream.write(chunk)
    stream.end()
    text = "".join(said)
    assert out.getvalue() == (text if text.endswith("\n") or not text else text + "\n")


@given(chunks)
def test_a_terminal_gets_it_safe_and_with_one_newline_at_the_end(said: list[str]) -> None:
    with window(200) as wide:
        stream = AnswerStream(wide.screen)
        for chunk in said:
            stream.write(chunk)
        stream.end()
        shown = wide.raw()
    safe = visible("".join(said))
    lines = "\n".join(line.rstrip(" ") for line in safe.split("\n")).rstrip("\n")
    assert shown == lines + "\n" * bool(safe.strip(" "))


def test_an_answer_is_flushed_as_it_comes() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
    AnswerStream(out).write("first")
    assert raw.getvalue() == b"first"


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


def test_keys_can_be_silent_without_a_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it after `<&-`
    with silent_keys():
        pass


def test_keys_show_where_python_has_no_termios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "termios", None)  # as on Windows
    with silent_keys():
        pass
