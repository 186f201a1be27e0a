"""The conversation in the terminal: read, answer, until the user leaves."""

from __future__ import annotations

from typing import TextIO

from mtp_cli.chat.chat import Chat
from mtp_cli.chat.commands import COMMANDS, dispatch
from mtp_cli.chat.editor import Editor
from mtp_cli.errors import MtpError
from mtp_cli.screen import forget_unwritten, say, say_error


def converse(chat: Chat, screen: TextIO) -> None:
    """Read from the terminal behind `screen` until Ctrl-D or /exit."""
    with_file = [command.name for command in COMMANDS if command.argument == "FILE"]
    chat.is_conversation = True
    editor = Editor([(command.name, command.summary) for command in COMMANDS], with_file, screen)
    while _turn(chat, editor):
        pass


def _turn(chat: Chat, editor: Editor) -> bool:
    """Read one line and do as it says; False when the user leaves."""
    try:
        _obey(chat, editor.read())
    except EOFError:
        return False
    except KeyboardInterrupt:  # a second Ctrl-C during an answer
        pass
    say("", chat.err)
    return True


def _obey(chat: Chat, line: str) -> None:
    """Run a command or answer a message; EOFError to leave.

    An answer that could not be written is kept as far as it came: the conversation can be saved.
    """
    try:
        if not dispatch(chat, line):
            chat.ask(line.strip())
    except MtpError as error:
        say_error(error, chat.err)
    except BrokenPipeError:  # whoever read the answers has had enough, as in `mtp-chat | head -1`
        forget_unwritten(chat.out)
        raise EOFError from None
    except OSError as error:
        forget_unwritten(chat.out)
        say_error(MtpError(f"cannot write the answer: {error.strerror}"), chat.err)
    finally:
        chat.follow()  # commands change the conversation too
