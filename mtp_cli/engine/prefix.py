"""How far two lists of ids are the same. Knows nothing of what they are."""

from __future__ import annotations

from collections.abc import Sequence


def n_common(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with."""
    n = 0
    for one, other in zip(ids, others, strict=False):
        if one != other:
            break
        n += 1
    return n
