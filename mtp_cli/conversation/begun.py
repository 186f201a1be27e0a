"""The beginning of an answer that is to go on, in this run or in another.

Knows what was said of it. Knows nothing of how it goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtp_cli.conversation.exact import Newest
from mtp_cli.conversation.reasoning import Splitter


@dataclass(frozen=True)
class Begun:
    """The beginning of an answer that is to go on.

    splitter: has heard what was said of it; None for nothing
    cut_off: what came besides and was not shown, as a text that it stopped at
    pending: bytes of a character that is not whole yet
    prompt:  as it was rendered; ids: its, and those of all that came since. Unknown for an answer
             from a file
    """

    splitter: Splitter | None = None
    cut_off: str = ""
    pending: bytes = b""
    prompt: str | None = None
    ids: Sequence[int] = ()
    is_whole: bool = False


def as_newest(begun: Begun) -> Newest | None:
    if begun.splitter is None or begun.prompt is None:
        return None
    return Newest(
        begun.prompt,
        begun.ids,
        begun.splitter.heard,
        begun.cut_off,
        begun.pending.hex(),
        begun.is_whole,
    )


def resumed(newest: Newest, splitter: Splitter) -> Begun:
    """splitter: for the answer, before anything is said"""
    splitter.feed(newest.said)
    splitter.finish()
    pending = bytes.fromhex(newest.pending)
    return Begun(splitter, newest.cut_off, pending, newest.prompt, newest.ids, newest.is_whole)
