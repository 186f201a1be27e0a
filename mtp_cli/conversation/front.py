"""What a chat template says by itself in front of a conversation, found by rendering and looking.

Knows templates as a function from messages to text.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence

from mtp_cli.conversation.template import Message
from mtp_cli.errors import MtpError

Render = Callable[[Sequence[Message]], str]

_ASKED, _ANSWERED, _TOLD, _AGAIN = "zqasked", "zqanswered", "zqtold", "zqagain"
_ROLES = ("system", "developer")


def own_words(render: Render, without_control: Callable[[str], str], system: str | None) -> str:
    """What stands before the first question that no one said; "" for nothing.

    without_control: a text without the control tokens that it spells
    system:          None for no system message, "" for an empty one

    Raises MtpError where the template refuses that.
    """
    given = [] if system is None else [Message(role="system", content=system)]
    front = render([*given, _user(_ASKED)]).partition(_ASKED)[0]
    n_header = _n_shared(front[::-1], _before_a_later_question(render)[::-1])
    front = front[: len(front) - n_header]
    n_opening = _n_shared(front, _before_a_system_prompt(render))
    told = _words(front[n_opening:], without_control)
    return told or _words(front, without_control)


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _before_a_later_question(render: Render) -> str:
    messages = [_user(_ASKED), Message(role="assistant", content=_ANSWERED), _user(_AGAIN)]
    with contextlib.suppress(MtpError):
        return render(messages).partition(_AGAIN)[0].rpartition(_ANSWERED)[2]
    return ""


def _before_a_system_prompt(render: Render) -> str:
    with contextlib.suppress(MtpError):
        before, told, _ = render([Message(role="system", content=_TOLD), _user(_ASKED)]).partition(
            _TOLD
        )
        return before if told else ""
    return ""


def _n_shared(one: str, other: str) -> int:
    """The length of what both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _words(text: str, without_control: Callable[[str], str]) -> str:
    words = without_control(text).strip()
    for role in _ROLES:
        if words == role or words.startswith(f"{role}\n"):
            words = words[len(role) :].strip()
    return words
