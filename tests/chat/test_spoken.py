"""Reasoning on the screen: dim in a terminal, between lines where nothing is dim, or left out."""

from __future__ import annotations

import io

import pytest

from mtp_cli.chat.spoken import SpokenStream
from mtp_cli.conversation.reasoning import Part

HM, WELL, YES, NO = (
    Part("reasoning", "Hm,"),
    Part("reasoning", " well."),
    Part("content", "Yes."),
    Part("content", " No."),
)
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def shown(out: io.StringIO, *parts: Part, is_shown: bool = True) -> str:
    stream = SpokenStream(out, is_shown=is_shown)
    for part in parts:
        stream.write(part)
    stream.end()
    return out.getvalue()


def test_in_a_terminal_reasoning_is_dim_above_the_answer() -> None:
    assert shown(Terminal(), HM, WELL, YES, NO) == f"{DIM}Hm, well.\n{PLAIN}\nYes. No.\n"


def test_an_answer_without_reasoning_looks_as_ever() -> None:
    assert shown(Terminal(), YES, NO) == "Yes. No.\n"
    assert shown(io.StringIO(), YES, NO) == "Yes. No.\n"


@pytest.mark.parametrize("out", [Terminal, io.StringIO])
def test_hidden_reasoning_leaves_no_trace(out: type[io.StringIO]) -> None:
    assert shown(out(), HM, WELL, YES, is_shown=False) == "Yes.\n"
    assert shown(out(), HM, is_shown=False) == ""


def test_where_nothing_is_dim_it_stands_between_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    between = "<think>\nHm, well.\n</think>\n\nYes.\n"
    assert shown(io.StringIO(), HM, WELL, YES) == between
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(Terminal(), HM, WELL, YES) == between


def test_reasoning_that_ends_the_answer_leaves_the_terminal_undimmed() -> None:
    assert shown(Terminal(), HM) == f"{DIM}Hm,\n{PLAIN}"


def test_thinking_again_after_an_answer_is_dim_again() -> None:
    assert shown(Terminal(), YES, HM, NO) == f"Yes.\n{DIM}Hm,\n{PLAIN}\n No.\n"


def test_no_escape_in_reasoning_reaches_the_terminal() -> None:
    assert shown(Terminal(), Part("reasoning", "\x1b[0m")) == f"{DIM}␛[0m\n{PLAIN}"
