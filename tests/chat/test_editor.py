"""The line editor, fed with keys as a terminal sends them."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input

from mtp_cli.chat.commands import COMMANDS
from mtp_cli.chat.editor import CommandCompleter, Editor, history_path, open_history

ENTER, ALT_ENTER, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x03", "\x04"
NAMES = [(command.name, command.summary) for command in COMMANDS]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys):
        yield keys


def read(keys: PipeInput, typed: str) -> str:
    keys.send_text(typed)
    return Editor(NAMES, ["/load"], io.StringIO()).read()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (f"hello{ENTER}", "hello"),
        ("hello\n", "hello"),
        (f"one{ALT_ENTER}two{ENTER}", "one\ntwo"),
        (f"one\\{ENTER}two{ENTER}", "one\ntwo"),
        (f"\x1b[200~one\ntwo\n\x1b[201~three{ENTER}", "one\ntwo\nthree"),
        (f"{ENTER}  {ENTER}x{ENTER}", "  x"),
        (f"forget this{CTRL_C}hello{ENTER}", "hello"),
        (f"{CTRL_C}{CTRL_C}hello{ENTER}", "hello"),
        (f"hxi\x1b[D{CTRL_D}\x1b[D{CTRL_D}e{ENTER}", "he"),
        (f"ünïcödé 🌧{ENTER}", "ünïcödé 🌧"),
    ],
)
def test_keys_make_messages(keys: PipeInput, typed: str, message: str) -> None:
    assert read(keys, typed) == message


def test_ctrl_d_on_an_empty_line_leaves(keys: PipeInput) -> None:
    with pytest.raises(EOFError):
        read(keys, CTRL_D)


def test_bytes_that_are_no_utf8_become_replacements(keys: PipeInput) -> None:
    keys.send_bytes(b"caf\xe9 ol\xe9" + ENTER.encode())
    assert Editor(NAMES, ["/load"], io.StringIO()).read() == "caf\ufffd ol\ufffd"


def test_history_outlives_the_run_for_this_user_alone(keys: PipeInput) -> None:
    read(keys, f"a question\\{ENTER}of two lines{ENTER}")
    assert stat.S_IMODE(history_path().stat().st_mode) == 0o600
    assert list(open_history().load_history_strings()) == ["a question\nof two lines"]


def test_a_history_that_others_could_read_is_closed_to_them() -> None:
    history_path().parent.mkdir(parents=True)
    history_path().touch(0o644)
    open_history()
    assert stat.S_IMODE(history_path().stat().st_mode) == 0o600


def test_without_a_place_for_history_it_stays_in_memory(
    keys: PipeInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert isinstance(open_history(), InMemoryHistory)
    assert read(keys, f"hello{ENTER}") == "hello"


def test_a_disk_that_fills_up_does_not_cost_the_message(
    keys: PipeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = Editor(NAMES, ["/load"], io.StringIO())
    history_path().unlink()
    history_path().mkdir()
    keys.send_text(f"hello{ENTER}")
    assert editor.read() == "hello"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("/s", ["/system", "/schema", "/save", "/stats"]),
        ("/he", ["/help"]),
        ("/load {folder}/ta", ["/load {folder}/talk.json"]),
        ("/clear {folder}/ta", []),
        ("/nothing", []),
        ("hello", []),
        ("a /he", []),
    ],
)
def test_commands_and_their_files_are_completed(
    tmp_path: Path, typed: str, completed: list[str]
) -> None:
    (tmp_path / "talk.json").touch()
    document = Document(typed.format(folder=tmp_path))
    found = CommandCompleter(NAMES, ["/load"]).get_completions(document, CompleteEvent())
    texts = [document.text[: len(document.text) + c.start_position] + c.text for c in found]
    assert texts == [text.format(folder=tmp_path) for text in completed]
