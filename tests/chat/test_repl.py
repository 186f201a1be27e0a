"""The conversation's loop, fed with keys, where its answers cannot be written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input

from mtp_cli.chat.chat import Chat
from mtp_cli.chat.repl import converse
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.engine import Sampling
from mtp_cli.models import ModelFiles
from tests.chat.scripted import ScriptedEngine, said


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with create_pipe_input() as keys, create_app_session(input=keys):
        yield keys


def chat_with(engine: ScriptedEngine, out: io.TextIOWrapper) -> Chat:
    return Chat(
        session=Session(engine),
        settings=Settings(Sampling(temperature=0.0)),
        files=ModelFiles(Path("/models/tiny.gguf"), None),
        n_ctx=engine.n_ctx,
        out=out,
        err=io.StringIO(),
    )


def shown(chat: Chat) -> str:
    assert isinstance(chat.err, io.StringIO)
    return chat.err.getvalue()


def test_a_full_disk_does_not_end_the_conversation(keys: PipeInput, tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as out:
        chat = chat_with(ScriptedEngine(said("Hello"), said("Again")), out)
        keys.send_text(f"Hi\rOnce more\r/save {tmp_path}/talk.json\r\x04")
        converse(chat, io.StringIO())
    error = "error: cannot write the answer: No space left on device\n"
    assert shown(chat).count(error) == 2
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"] * 2


def test_a_reader_that_leaves_ends_the_conversation_quietly(keys: PipeInput) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as out:
        chat = chat_with(ScriptedEngine(said("Hello")), out)
        keys.send_text("Hi\rnever read\r")
        converse(chat, io.StringIO())
    assert shown(chat) == ""


def test_a_dumb_terminal_gets_nothing_to_obey(
    keys: PipeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as screen:
        chat = chat_with(ScriptedEngine(said("Hello")), screen)
        keys.send_text("Hi\r\x04")
        converse(chat, screen)
        screen.flush()
        os.set_blocking(reader, False)
        shown = b""
        with contextlib.suppress(BlockingIOError):
            while True:  # a terminal may hand it out in parts
                shown += os.read(reader, 1000)
    os.close(reader)
    assert shown.replace(b"\r", b"").rstrip() == b"> Hi\nHello\n>"
