"""Text that comes in and goes out: an editor, files, the clipboard."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from mtp_cli.chat.commands import dispatch
from mtp_cli.conversation.attached import Attached, attach, with_files
from mtp_cli.errors import MtpError
from tests.chat.scripted import ScriptedEngine, said
from tests.chat.test_commands import ask, chat_with, contents, shown
from tests.chat.window import window


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that puts this file's text in the place of what it is to edit, unless empty."""
    text = tmp_path / "typed.txt"
    program = tmp_path / "editor.py"
    program.write_text(
        "import pathlib, sys, os\n"
        f"typed = pathlib.Path({str(text)!r})\n"
        "edited = pathlib.Path(sys.argv[1])\n"
        f"pathlib.Path({str(tmp_path / 'before.txt')!r}).write_text(edited.read_text())\n"
        "if typed.exists():\n"
        "    edited.write_text(typed.read_text())\n"
        "    os.utime(edited, (9e8, 9e8))\n"  # as saved at another time than it was made
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {program}")
    monkeypatch.delenv("VISUAL", raising=False)
    return text


def test_a_message_is_written_in_the_editor(editor: Path) -> None:
    editor.write_text("Two\nlines\n")
    chat = chat_with(ScriptedEngine(said("Yes.")))
    dispatch(chat, "/edit")
    assert contents(chat) == ["Two\nlines", "Yes."]


def test_the_last_message_is_written_anew(editor: Path, tmp_path: Path) -> None:
    editor.write_text("Why?")
    chat = chat_with(ScriptedEngine(said("No."), said("So.")))
    ask(chat, "How?")
    dispatch(chat, "/edit last")
    assert (tmp_path / "before.txt").read_text().strip() == "How?"
    assert contents(chat) == ["Why?", "So."]


def test_what_is_not_saved_is_not_sent(editor: Path) -> None:
    chat = chat_with(ScriptedEngine(said("No.")))
    ask(chat, "How?")
    dispatch(chat, "/edit last")
    assert contents(chat) == ["How?", "No."]
    assert "nothing is sent" in shown(chat)


def test_an_editor_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    monkeypatch.delenv("VISUAL", raising=False)
    with pytest.raises(MtpError, match="EDITOR names another"):
        dispatch(chat_with(ScriptedEngine()), "/edit")


def test_a_file_goes_with_the_next_message_alone(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("x = 1\n")
    chat = chat_with(ScriptedEngine(said("One."), said("Two.")))
    dispatch(chat, f"/file {path}")
    assert "with the next message: code.py" in shown(chat)
    chat.ask("What is it?")
    chat.ask("And?")
    assert contents(chat)[0] == "code.py:\n```py\nx = 1\n```\n\nWhat is it?"
    assert contents(chat)[2] == "And?"


def test_a_file_stays_for_the_next_message_where_one_fails(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a" * 5000)
    chat = chat_with(ScriptedEngine())
    dispatch(chat, f"/file {tmp_path / 'long.txt'}")
    with pytest.raises(MtpError, match="no room"):
        chat.ask("So?")
    assert len(chat.attached) == 1


def test_fences_are_longer_than_those_in_the_file() -> None:
    assert str(Attached("a.md", "```\nx\n```\n")) == "a.md:\n````md\n```\nx\n```\n````"
    assert with_files("", [Attached("a", "x")]) == "a:\n```\nx\n```"


@pytest.mark.parametrize(
    ("raw", "said_of_it"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "not a text file"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"caf\xe9", "not UTF-8 text: byte 0xe9 at offset 3"),
        (b" \n", "empty"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, raw: bytes, said_of_it: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(MtpError, match=said_of_it):
        attach(path)


@pytest.mark.parametrize("path", ["/no/such/file", "/", "~nobody-of-this-name/x"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(MtpError, match=r"No such file|Is a directory|no such user"):
        attach(Path(path))


def test_an_answer_is_copied_by_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    monkeypatch.setenv("TERM", "xterm")
    with window(80) as terminal:
        chat = chat_with(ScriptedEngine(said("See:\n```c\nint x;\n```\n")))
        ask(chat, "Code?")
        chat.err = terminal.screen
        dispatch(chat, "/copy")
        dispatch(chat, "/copy code")
        raw = terminal.raw()
    texts = [part.partition("\a")[0] for part in raw.split("\x1b]52;c;")[1:]]
    assert [base64.b64decode(text).decode() for text in texts] == [
        "See:\n```c\nint x;\n```\n",
        "int x;\n",
    ]
    assert "copied 7 characters" in raw


def test_what_cannot_be_copied_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "1 2 3 4")
    chat = chat_with(ScriptedEngine(said("Plain.")))
    with pytest.raises(MtpError, match="no answer to copy"):
        dispatch(chat, "/copy")
    ask(chat, "Code?")
    with pytest.raises(MtpError, match="no code between fences"):
        dispatch(chat, "/copy code")
    with pytest.raises(MtpError, match="no clipboard"):
        dispatch(chat, "/copy")
    with pytest.raises(MtpError, match="/copy takes code or nothing"):
        dispatch(chat, "/copy all")


def test_drafts_are_shown_in_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    rounds = [tuple(b"I"), tuple(b" am"), tuple(b" he"), *said("re.")]
    with window(80) as terminal:
        chat = chat_with(ScriptedEngine(rounds))
        chat.out = terminal.screen
        dispatch(chat, "/drafts")
        ask(chat, "Where?")
        raw = terminal.raw()
    assert "drafted green, copied cyan" in shown(chat)
    assert raw.startswith("I\x1b[32m a\x1b[0mm\x1b[32m h\x1b[0mere.")
