"""The conversation of a chat, written into the log as it happens.

Knows the session and the log. A log that cannot be written is said once, and never ends a
conversation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtp_cli.errors import MtpError
from mtp_cli.screen import say_error

if TYPE_CHECKING:
    from mtp_cli.chat.chat import Chat
    from mtp_cli.conversation.answer import Answer
    from mtp_cli.conversation.template import Message
    from mtp_cli.log.store import About, Kept, Log, Place


def is_wanted(wish: bool | None, *, usually: bool) -> bool:
    """Whether to keep it. wish: --log or --no-log; None: neither was given"""
    if wish is not None:
        return wish
    return usually and not os.environ.get("MTP_NO_LOG")


class KeptChat:
    """about: what the log says of the chat now; before: the conversation that goes on, if any"""

    def __init__(
        self, path: Path, about: Callable[[Chat], About], before: Kept | None = None
    ) -> None:
        self._path = path
        self._about = about
        self._log: Log | None = None
        self._is_given_up = False
        self._place: Place | None = None if before is None else before.place
        self._said: list[Message] = [] if before is None else [*before.conversation.messages]
        self._newest_about: About | None = None

    def ask(self, chat: Chat, answer: Answer) -> None:
        """A question will be answered: it is kept before the answer begins."""
        if len(answer.asked) > len(chat.session.messages):
            self._write(chat, [*answer.asked])

    def follow(self, chat: Chat) -> None:
        """Write what has changed: answers, and what commands did to the conversation."""
        messages = chat.session.messages
        is_other = self._newest_about not in (None, self._about(chat))
        if messages and (is_other or messages != self._said):
            self._write(chat, messages)
        elif not messages:
            self._begin_anew()

    def _begin_anew(self) -> None:
        if len(self._said) > 1:  # a first question without an answer makes room for the next
            self._place, self._said = None, []

    def _write(self, chat: Chat, messages: list[Message]) -> None:
        if self._is_given_up:
            return
        n_same = _n_same(self._said, messages)
        if n_same == 0 and self._said[:1] != messages[:1]:  # nothing is left of what was there
            self._begin_anew()
        try:
            about = self._about(chat)
            self._place = self._opened().write(
                self._place, about, messages, n_same, chat.session.exact().to_bytes()
            )
        except MtpError as error:
            self._is_given_up = True
            say_error(
                MtpError(f"this conversation is no longer kept in the log: {error}"), chat.err
            )
            return
        self._said, self._newest_about = [*messages], about

    def _opened(self) -> Log:
        if self._log is None:
            from mtp_cli.log.store import Log  # loads SQLite

            self._log = Log(self._path)
        return self._log

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def _n_same(before: Sequence[Message], now: Sequence[Message]) -> int:
    """Exchanges, answered, with which both begin."""
    n = 0
    while 2 * n + 2 <= min(len(before), len(now)) and (
        before[2 * n : 2 * n + 2] == now[2 * n : 2 * n + 2]
    ):
        n += 1
    return n
