"""The line editor: prompt_toolkit, set up for messages of one or many lines.

Knows keys, history and completion. Knows nothing of models, and of commands only their names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TextIO

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

_STYLE = Style.from_dict(
    {
        "prompt": "bold",
        "placeholder": "fg:ansibrightblack",
        "completion-menu": "bg:default fg:default",
        "completion-menu.completion": "bg:default fg:default",
        "completion-menu.completion.current": "bg:default fg:default bold reverse",
        "completion-menu.meta.completion": "bg:default fg:ansibrightblack",
        "completion-menu.meta.completion.current": "bg:default fg:ansibrightblack reverse",
    }
)


class Editor:
    """Reads messages from the terminal behind `screen`.

    commands:  (name, summary) of each slash command, to complete
    with_file: the names of those that take a file name
    """

    def __init__(
        self, commands: Sequence[tuple[str, str]], with_file: Collection[str], screen: TextIO
    ) -> None:
        self._hint = "Ask anything"
        # As an argument of the prompt it would hide from it that a terminal is a dumb one.
        with create_app_session(output=_output(screen)):
            self._prompt: PromptSession[str] = PromptSession(
                [("class:prompt", "> ")],
                history=open_history(),
                multiline=True,
                prompt_continuation="  ",
                placeholder=lambda: [("class:placeholder", self._hint)],
                completer=CommandCompleter(commands, with_file),
                complete_while_typing=_typing_a_command,
                reserve_space_for_menu=len(commands),
                key_bindings=self._bindings(),
                enable_open_in_editor=True,
                enable_suspend=True,
                style=_STYLE,
            )

    def read(self) -> str:
        """The next message, as typed; EOFError when the user leaves."""
        while True:
            try:
                text = self._prompt.prompt()
            except KeyboardInterrupt:  # a signal from outside; the key has its own binding
                continue
            self._hint = ""
            # A terminal may send bytes that are not UTF-8; they arrive as lone surrogates.
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()

        @bindings.add("enter")
        @bindings.add("c-j")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.current_line_before_cursor.endswith("\\"):
                buffer.delete_before_cursor()
                buffer.newline(copy_margin=False)
            elif buffer.text.strip():
                buffer.validate_and_handle()

        @bindings.add("escape", "enter")
        @bindings.add("escape", "c-j")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @bindings.add("c-c")
        def _(event: KeyPressEvent) -> None:
            self._hint = "" if event.current_buffer.text else "Ctrl-D leaves"
            event.current_buffer.reset()

        return bindings


@Condition
def _typing_a_command() -> bool:
    document = get_app().current_buffer.document
    return document.text.startswith("/") and " " not in document.text_before_cursor


class CommandCompleter(Completer):
    """Completes the commands, and the file names that some of them take."""

    def __init__(self, commands: Sequence[tuple[str, str]], with_file: Collection[str]) -> None:
        self._commands = commands
        self._with_file = with_file
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        typed = document.text
        name, space, path = typed.partition(" ")
        if space and name in self._with_file:
            yield from self._paths.get_completions(Document(path), complete_event)
        if space or not typed.startswith("/"):
            return
        for name, summary in self._commands:
            if name.startswith(typed):
                yield Completion(name, start_position=-len(typed), display_meta=summary)


def history_path() -> Path:
    """Where history lives: XDG_STATE_HOME or the platform's own place for such files."""
    return platformdirs.user_state_path("mtp-chat", appauthor=False) / "history"


def open_history() -> History:
    """The history of earlier runs, for this user's eyes only; in memory where none can be kept."""
    path = history_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return _FileHistory(path)


class _FileHistory(FileHistory):
    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not cost the message
            super().store_string(string)


def _output(screen: TextIO) -> Output:
    output = PlainTextOutput(screen) if is_dumb_terminal() else create_output(screen)
    # Asking the terminal for the cursor's place buys nothing here, and a terminal that does not
    # answer would be told so in the middle of the conversation.
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output
