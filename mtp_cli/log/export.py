"""A conversation of the log as a text to read, or to go on from elsewhere. Pure text."""

from __future__ import annotations

import time
from collections.abc import Iterator

from mtp_cli.conversation import saved
from mtp_cli.log.store import Kept

FORMATS = ("markdown", "json")


def exported(kept: Kept, form: str) -> str:
    """form: of FORMATS; "json" is what `/save` writes and `/load` reads"""
    if form == "json":
        return saved.as_text(kept.conversation)
    return "\n\n".join(_sections(kept)) + "\n"


def _sections(kept: Kept) -> Iterator[str]:
    yield f"# Conversation {kept.place.id}"
    yield f"{moment(kept.created_s)}, {kept.about.name}"
    if kept.about.system:
        yield "## System prompt"
        yield kept.about.system.strip()
    for message in kept.conversation.messages:
        yield "## Question" if message["role"] == "user" else "## Answer"
        if message.get("reasoning"):
            yield _quoted(message["reasoning"].strip())
        yield message["content"].strip()
    if kept.unanswered is not None:
        yield "## Question"
        yield kept.unanswered.strip()
        yield "(no answer)"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def moment(seconds: float) -> str:
    """A point in time, as the user's clock has it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
