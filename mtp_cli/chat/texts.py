"""The commands that bring text into a conversation and take it out: editor, files, clipboard."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mtp_cli.chat import clipboard
from mtp_cli.chat.chat import Chat
from mtp_cli.chat.fences import code_blocks
from mtp_cli.conversation import saved
from mtp_cli.conversation.attached import attach
from mtp_cli.errors import MtpError


def edit(chat: Chat, argument: str) -> None:
    if argument not in ("", "last"):
        raise MtpError(f"/edit takes last or nothing, not {argument}")
    is_anew = bool(argument) and bool(chat.session.messages)
    before = chat.session.messages[-2]["content"] if is_anew else ""
    text = _edited(before)
    if not text.strip():
        chat.note("nothing was written, and nothing is sent")
        return
    if is_anew:
        chat.session.undo()
    chat.note(shortened(text))
    chat.ask(text.strip())


def file(chat: Chat, argument: str) -> None:
    path = _path(argument, "/file")
    chat.attached.append(attach(path))
    n = len(chat.attached)
    what = path.name if n == 1 else f"{path.name} and {n - 1} more"
    chat.note(f"with the next message: {what}")


def copy(chat: Chat, argument: str) -> None:
    if argument not in ("", "code"):
        raise MtpError(f"/copy takes code or nothing, not {argument}")
    if not chat.session.messages:
        raise MtpError("there is no answer to copy")
    answer = chat.session.messages[-1]["content"]
    if argument:
        blocks = code_blocks(answer)
        if not blocks:
            raise MtpError("there is no code between fences in the last answer")
        answer = blocks[-1]
    chat.note(clipboard.copy(answer, chat.err))


def save(chat: Chat, argument: str) -> None:
    path = _path(argument, "/save")
    saved.save(
        path,
        saved.Conversation(
            system=chat.session.system,
            messages=chat.session.messages,
            model=chat.files.name,
            sampling=dataclasses.asdict(chat.settings.sampling),
        ),
    )
    chat.note(f"saved {len(chat.session.messages)} messages to {path}")


def load(chat: Chat, argument: str) -> None:
    path = _path(argument, "/load")
    conversation = saved.load(path)
    chat.session.system = conversation.system
    chat.session.messages = list(conversation.messages)
    chat.note(f"loaded {len(conversation.messages)} messages from {path}")
    if conversation.model and conversation.model != chat.files.name:
        chat.note(f"they were said to {conversation.model}")
    if conversation.messages:
        chat.note(f"the last answer: {shortened(conversation.messages[-1]['content'])}")


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise MtpError(f"{command} needs a file name")
    return Path(argument)


def shortened(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _edited(text: str) -> str:
    """What the user's editor makes of a text; "" where it is left without saving."""
    import click

    try:
        return click.edit(text, extension=".md") or ""
    except click.ClickException as error:
        raise MtpError(f"{error.format_message()}; EDITOR names another") from error
