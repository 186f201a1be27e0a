"""Finds marks in text that has come so far, and tells how much of it may still become one.

Knows text and marks. What a mark means is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mtp_cli.conversation.control import n_margin

Meaning = Literal["open", "close", "content", "end", "header"]


class Active(NamedTuple):
    """A mark that counts now; is_first: only where a section begins"""

    mark: str
    meaning: Meaning
    is_first: bool


class Found(NamedTuple):
    at: int
    mark: str
    meaning: Meaning


def find(held: str, active: Sequence[Active]) -> Found | None:
    """The first mark in what is held; of several there, the longest."""
    margin = n_margin(held)
    best: Found | None = None
    for mark, meaning, is_first in active:
        at = held.find(mark)
        if at < 0 or (is_first and at != margin):
            continue
        if best is None or (at, -len(mark)) < (best.at, -len(best.mark)):
            best = Found(at, mark, meaning)
    return best


def n_certain(held: str, active: Sequence[Active]) -> int:
    """How many characters of what is held can no longer become part of a mark."""
    certain, margin = len(held), n_margin(held)
    for mark, _meaning, is_first in active:
        if is_first:
            if mark.startswith(held[margin:]):
                return 0
            continue
        start = max(0, len(held) - len(mark) + 1)
        for at in range(start, certain):
            if mark.startswith(held[at:]):
                certain = at
                break
    return certain


def may_grow(held: str, mark: str, active: Sequence[Active]) -> bool:
    """Whether what is held, which begins with `mark`, may yet become a longer one."""
    return any(
        len(longer) > len(held) and longer.startswith(held) and longer != mark
        for longer, _meaning, _is_first in active
    )
