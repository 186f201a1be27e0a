"""The conversation in the terminal: read, answer, until the user leaves."""

from __future__ import annotations

from typing import TextIO

from mtp_cli.chat.chat import Chat
from mtp_cli.chat.commands import COMMANDS, dispatch
from mtp_cli.chat.editor import Editor
from mtp_cli.chat.terminal import error_line
from mtp_cli.errors import MtpError


def converse(chat: Chat, screen: TextIO) -> None:
    """Read from the terminal behind `screen` until Ctrl-D or /exit."""
    with_file = [command.name for command in COMMANDS if command.argument == "FILE"]
    editor = Editor([(command.name, command.summary) for command in COMMANDS], with_file, screen)
    while _turn(chat, editor):
        pass


def _turn(chat: Chat, editor: Editor) -> bool:
    """Read one line and do as it says; False when the user leaves."""
    try:
        line = editor.read()
        if not dispatch(chat, line):
            chat.show(chat.session.ask(line.strip(), chat.settings))
    except EOFError:
        return False
    except KeyboardInterrupt:  # a second Ctrl-C during an answer
        pass
    except MtpError as error:
        print(error_line(error), file=chat.err)
    print(file=chat.err, flush=True)
    return True
