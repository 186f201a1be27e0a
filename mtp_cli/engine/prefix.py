"""How far two lists of ids are the same. Knows nothing of what they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtp_cli.engine.types import Ids


def n_common(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with."""
    n = 0
    for one, other in zip(ids, others, strict=False):
        if one != other:
            break
        n += 1
    return n


def n_common_array(ids: Ids, others: Ids) -> int:
    """The same of arrays: many are compared with one."""
    n = min(len(ids), len(others))
    differing = np.flatnonzero(ids[:n] != others[:n])
    return int(differing[0]) if len(differing) else n
