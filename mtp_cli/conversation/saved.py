"""Saved conversations: one JSON file each, written whole or not at all, read with suspicion.

Knows the file's shape. Knows nothing of engines.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli.conversation.template import Message
from mtp_cli.errors import MtpError, json_fault, path_fault
from mtp_cli.whole_file import write_whole

_FORMAT = "mtp-chat conversation"
_VERSION = 2
_READ_VERSIONS = (1, 2)  # 1 knows no reasoning
_MAX_MB = 64  # far beyond any context
_MAX_NAMED = 120  # characters of a path that go on a line
_BAD_PATH = (OSError, ValueError, RuntimeError)  # no such place, a NUL in it, "~nobody"


@dataclass(frozen=True)
class Conversation:
    """What a file holds. messages: user and assistant in turn; model and sampling: for people."""

    system: str | None
    messages: Sequence[Message]
    model: str
    sampling: Mapping[str, Any]


def as_text(conversation: Conversation) -> str:
    """The file's text, which `load` reads."""
    messages = [dict(message) for message in conversation.messages]
    if conversation.system is not None:
        messages.insert(0, {"role": "system", "content": conversation.system})
    fields = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": conversation.model,
        "sampling": dict(conversation.sampling),
        "messages": messages,
    }
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def save(path: Path, conversation: Conversation) -> None:
    """Write by way of a temporary file beside `path`; never over a file that is something else."""
    try:
        target = path.expanduser().resolve()
        if target.exists():
            _refuse_to_overwrite(target)
        write_whole(target, as_text(conversation), is_durable=True)
    except _BAD_PATH as error:
        raise MtpError(f"cannot save to {_named(path)}: {path_fault(error)}") from error


def load(path: Path) -> Conversation:
    """Read and validate; MtpError names what is wrong with the file."""
    try:
        text = _read(path)
    except UnicodeDecodeError as error:
        raise MtpError(f"{path}: not a saved conversation: not UTF-8") from error
    except _BAD_PATH as error:
        raise MtpError(f"cannot load {_named(path)}: {path_fault(error)}") from error
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MtpError(f"{path}: not a saved conversation: {json_fault(error)}") from error
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        raise MtpError(f"{path}: not a saved conversation: expected format {_FORMAT!r}")
    if fields.get("version") not in _READ_VERSIONS:
        raise MtpError(f"{path}: expected version {_VERSION}, found {fields.get('version')!r}")
    system, messages = _validated(path, fields.get("messages"))
    sampling = fields.get("sampling")
    return Conversation(
        system=system,
        messages=messages,
        model=str(fields.get("model", "")),
        sampling=sampling if isinstance(sampling, dict) else {},
    )


def _read(path: Path) -> str:
    """Looks before it reads: a FIFO would wait for ever, and /dev/zero never ends."""
    found = path.expanduser().stat()
    if not stat.S_ISREG(found.st_mode):
        raise MtpError(f"{path}: not a saved conversation: not a regular file")
    if found.st_size > _MAX_MB << 20:
        raise MtpError(
            f"{path}: not a saved conversation: {found.st_size >> 20:,} MB, where at most "
            f"{_MAX_MB} are read"
        )
    return path.expanduser().read_text(encoding="utf-8-sig")  # Windows' editors write a BOM


def _validated(path: Path, found: Any) -> tuple[str | None, list[Message]]:
    """The system message, and user and assistant messages in turn, ending with an answer."""
    if not isinstance(found, list):
        raise MtpError(f"{path}: expected a list of messages")
    messages: list[Message] = []
    for i, item in enumerate(found):
        content = item.get("content") if isinstance(item, dict) else None
        if not isinstance(content, str) or not _is_text(content):
            raise MtpError(f"{path}: message {i}: expected a role and a text as its content")
        message = Message(role=item.get("role"), content=content)
        if "reasoning" in item:
            message["reasoning"] = _reasoning(path, i, item["reasoning"])
        messages.append(message)
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
    for i, message in enumerate(messages):
        expected = ("user", "assistant")[i % 2]
        if message["role"] != expected:
            raise MtpError(
                f"{path}: expected {expected} and found {message['role']!r} as the role of turn {i}"
            )
    if len(messages) % 2:
        raise MtpError(f"{path}: the last user message has no answer")
    return system, messages


def _reasoning(path: Path, i: int, found: Any) -> str:
    if not isinstance(found, str) or not _is_text(found):
        raise MtpError(f"{path}: message {i}: expected a text as its reasoning")
    return found


def _is_text(content: str) -> bool:
    try:
        content.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return False
    return True


def _named(path: Path) -> str:
    """The path, but no longer than a line or two: a name may be wrong by its length."""
    text = str(path)
    return text if len(text) <= _MAX_NAMED else f"{text[: _MAX_NAMED // 2]}…{text[-20:]}"


def _refuse_to_overwrite(path: Path) -> None:
    try:
        load(path)
    except MtpError as error:
        raise MtpError(
            f"{path} exists and is not a saved conversation; choose another name"
        ) from error
