"""Which conversations stay in memory beside the one that the engine holds.

The engine has one timeline. Before another conversation takes it, what it holds is saved; a prompt
that goes on from something saved gets it back. Knows ids and sizes, nothing of text or requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mtp_cli.engine.prefix import n_common_array
from mtp_cli.engine.types import Ids, Saved

# Ids that are sooner read again than a timeline is saved and put back for them.
N_WORTH_KEEPING = 32


class Timeline(Protocol):
    """What is needed of an engine; `mtp_cli.engine.Engine` says what each is."""

    @property
    def cached(self) -> Sequence[int]: ...
    @property
    def can_shorten(self) -> bool: ...
    def save(self) -> Saved: ...
    def restore(self, saved: Saved) -> None: ...


@dataclass(frozen=True)
class _Kept:
    """ids: the saved ones, as an array: all that is kept is compared with every prompt"""

    saved: Saved
    ids: Ids


class Timelines:
    """Saved conversations, the least recently used of which go when they need too much.

    max_bytes: that all of them may take
    """

    def __init__(self, engine: Timeline, max_bytes: int) -> None:
        self._engine = engine
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[int, ...], _Kept] = OrderedDict()  # oldest use first
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def prepare(self, prompt: Sequence[int]) -> None:
        """Let the engine hold the longest beginning of `prompt` that is known."""
        wanted = _array(prompt[:-1])  # its own last id is always read again
        n_live = self._n_reused(_array(self._engine.cached), wanted)
        found = [(self._n_reused(kept.ids, wanted), kept) for kept in self._kept.values()]
        n_best, best = max(found, key=lambda pair: pair[0], default=(0, None))
        is_better = n_best > n_live + N_WORTH_KEEPING
        if len(self._engine.cached) - (0 if is_better else n_live) > N_WORTH_KEEPING:
            self._save()
        if best is not None and is_better:
            self._forget(best.saved)
            self._engine.restore(best.saved)

    def _n_reused(self, ids: Ids, wanted: Ids) -> int:
        """How many of `ids` a prompt goes on from."""
        n = n_common_array(ids, wanted)
        return n if n == len(ids) or self._engine.can_shorten else 0

    def _save(self) -> None:
        saved = self._engine.save()
        kept = _Kept(saved, _array(saved.ids))
        if self._engine.can_shorten:
            for other in [*self._kept.values()]:
                if n_common_array(other.ids, kept.ids) == len(other.ids):
                    self._forget(other.saved)  # the new one begins with it
        self._forget(saved)
        self._kept[saved.ids] = kept
        self.n_bytes += saved.n_bytes
        while self.n_bytes > self._max_bytes:
            self._forget(next(iter(self._kept.values())).saved)

    def _forget(self, saved: Saved) -> None:
        found = self._kept.pop(saved.ids, None)
        if found is not None:
            self.n_bytes -= found.saved.n_bytes


def _array(ids: Sequence[int]) -> Ids:
    return np.fromiter(ids, np.int32, len(ids))
