"""How a target and a small model number the same tokens. Pure: knows spellings only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtp_cli.engine.types import Floats, Ids


class VocabularyMap:
    """From a target's ids to a small model's, and from its rows of logits to the target's ids.

    target, small: each id's spelling, as its GGUF has it
    share:         of the target's ids, those whose spelling the small model has
    """

    def __init__(self, target: Sequence[bytes], small: Sequence[bytes]) -> None:
        ids = {spelling: i for i, spelling in reversed(list(enumerate(small)))}
        same = [
            i if i < len(small) and small[i] == spelling else ids.get(spelling, -1)
            for i, spelling in enumerate(target)
        ]
        self._places = np.array(same, np.int32)
        self._absent: Ids = np.flatnonzero(self._places < 0).astype(np.int32)
        self.share = 1 - len(self._absent) / max(1, len(target))
        for i in self._absent.tolist():
            same[i] = _beginning(target[i], ids)
        self._small = same

    def to_small(self, target_id: int) -> int:
        """The id with that spelling; where there is none, with the longest beginning of it."""
        return self._small[target_id]

    def row(self, logits: Floats) -> Floats:
        """(n_target,) float32 of a row (n_small,): -inf for ids that the small model lacks."""
        row: Floats = logits[self._places]
        row[self._absent] = -np.inf
        return row


def mapped(target: Sequence[bytes], small: Sequence[bytes]) -> VocabularyMap | None:
    """The map between two vocabularies; None where they are one."""
    return None if target == small else VocabularyMap(target, small)


def _beginning(spelling: bytes, ids: dict[bytes, int]) -> int:
    beginnings = (spelling[:n] for n in range(len(spelling) - 1, 0, -1))
    return next((ids[beginning] for beginning in beginnings if beginning in ids), 0)
