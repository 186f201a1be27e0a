"""Verifies drafts. Knows nothing of text or llama.cpp.

A draft is a guess at what the target will choose, so it is verified by letting the target choose:
row by row, until its choice is not the drafted token. What comes out is what the target alone
would have given, whatever was drafted: greedy choices are identical, sampled ones use the same
random numbers on the same distributions. For drafts that are a single token per position this is
the rejection rule of Leviathan et al. (2023) in another order of events: a drafted token x is kept
with probability p(x), and otherwise the token comes from p without x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")


def verify(
    draft: Sequence[int],
    rows: Sequence[Row],
    choose: Callable[[Row], int],
    is_end: Callable[[int], bool],
) -> list[int]:
    """The target's tokens: the accepted part of `draft`, then one of its own; none after an end.

    rows: the target's outputs at the newest id and at each drafted one, len(draft) + 1 of them;
          rows after the first rejected token follow a text that is not the target's and are
          never looked at
    """
    chosen = []
    for position, row in enumerate(rows):
        chosen.append(choose(row))
        if position == len(draft) or chosen[-1] != draft[position] or is_end(chosen[-1]):
            break
    return chosen
