"""Reasoning on the screen: dim in a terminal, between lines where nothing is dim, or left out."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest

from mtp_cli.chat.chat import Chat
from mtp_cli.chat.spoken import SpokenStream
from mtp_cli.conversation.reasoning import Part
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.engine import Sampling
from mtp_cli.models import ModelFiles
from tests.chat.scripted import END, said
from tests.chat.window import window
from tests.conversation.test_session_reasoning import SAYS_NOTHING, THINK, UNTHINK, ThinkingEngine

HM, WELL, YES, NO = (
    Part("reasoning", "Hm,"),
    Part("reasoning", " well."),
    Part("content", "Yes."),
    Part("content", " No."),
)
# The line below an answer, until it is taken back.
LIVE = re.compile(r"\n\x1b\[2m\d+ tok/s[^\n]*?(?:\x1b\[\?2026h)?\x1b\[J")
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
    assert (
        shown(Terminal(), HM, WELL, YES, NO) == f"{DIM}Hm,{PLAIN}{DIM} well.{PLAIN}\n\nYes. No.\n"
    )


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
    assert shown(Terminal(), HM) == f"{DIM}Hm,{PLAIN}\n"


def test_thinking_again_after_an_answer_is_dim_again() -> None:
    assert shown(Terminal(), YES, HM, NO) == f"Yes.\n{DIM}Hm,{PLAIN}\n\n No.\n"
    later = Part("content", "\n\nNo.")
    assert shown(Terminal(), YES, HM, later) == f"Yes.\n{DIM}Hm,{PLAIN}\n\nNo.\n"


def test_what_is_not_shown_leaves_the_line_to_others_and_no_trace() -> None:
    later = Part("content", "\n\nNo.")
    for out in (Terminal(), io.StringIO()):
        stream = SpokenStream(out, is_shown=False)
        assert stream.write(YES)
        assert not stream.write(HM)
        stream.pause()
        stream.pause()
        assert out.getvalue() == ("Yes.\n" if out.isatty() else "Yes.")
        stream.write(later)
        stream.end()
        assert out.getvalue() == "Yes.\n\nNo.\n"


def test_it_says_before_it_writes_and_not_sooner() -> None:
    said: list[str] = []
    out = Terminal()
    stream = SpokenStream(out, is_shown=False, before_text=lambda: said.append(out.getvalue()))
    for part in (Part("content", " "), HM, Part("content", "Ye")):
        stream.write(part)
    assert said == []  # nothing shows yet
    stream.write(Part("content", "s. No"))
    assert said == [""]


def test_no_escape_in_reasoning_reaches_the_terminal() -> None:
    assert shown(Terminal(), Part("reasoning", "\x1b[0m")) == f"{DIM}␛[0m{PLAIN}\n"


@pytest.mark.parametrize("first", ["", "First."])
def test_a_sign_is_shown_while_hidden_reasoning_comes(first: str) -> None:
    """Before the answer, and again in the middle of one, on a line of its own."""
    rounds = [*said(first, end=False), (THINK,), *said("Hm, hm."), (UNTHINK,), *said("Yes.")]
    engine = ThinkingEngine([ids for ids in rounds if ids != (END,)], template=SAYS_NOTHING)
    with window(60) as terminal:

        def linger() -> None:
            assert engine.generation is not None
            is_late = engine.generation.tokens[-1] == ord(",")
            until = time.monotonic() + 20
            while is_late and "thinking: " not in terminal.so_far and time.monotonic() < until:
                time.sleep(0.05)

        engine.after_round = linger
        settings = Settings(Sampling(temperature=0.0))
        files = ModelFiles(Path("/m.gguf"), None)
        chat = Chat(Session(engine), settings, files, 999, terminal.screen, terminal.screen)
        chat.shows_reasoning = False
        chat.show(chat.session.ask("So?", chat.settings))
        raw = terminal.raw()
    before, sign, after = LIVE.sub("", raw).partition("thinking: ")
    assert sign
    n_said = len(first) + 4
    assert after.startswith(f"{n_said} tokens")
    assert before.replace("\r\x1b[K", "").removesuffix(DIM) == (f"{first}\n" if first else "")
    answered = after.rpartition("\r\x1b[K")[2]
    assert answered.startswith("\nYes.\n" if first else "Yes.\n")
