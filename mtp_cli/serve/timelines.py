"""Which conversations stay in memory beside the one that the engine holds.

The engine has one timeline. Before another conversation takes it, what it holds is saved; a prompt
that goes on from something saved gets it back. Knows ids and sizes, nothing of text or requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from mtp_cli.engine.types import Saved

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


class Timelines:
    """Saved conversations, the least recently used of which go when they need too much.

    max_bytes: that all of them may take
    """

    def __init__(self, engine: Timeline, max_bytes: int) -> None:
        self._engine = engine
        self._max_bytes = max_bytes
        self._saved: OrderedDict[tuple[int, ...], Saved] = OrderedDict()  # oldest use first
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._saved)

    def prepare(self, prompt: Sequence[int]) -> None:
        """Let the engine hold the longest beginning of `prompt` that is known."""
        live = self._engine.cached
        n_live = self._n_reused(live, prompt)
        best = max(
            self._saved.values(), key=lambda saved: self._n_reused(saved.ids, prompt), default=None
        )
        n_best = 0 if best is None else self._n_reused(best.ids, prompt)
        is_better = best is not None and n_best > n_live + N_WORTH_KEEPING
        n_lost = len(live) - (0 if is_better else n_live)
        if n_lost > N_WORTH_KEEPING:
            self._save()
        if best is not None and is_better:
            self._forget(best)
            self._engine.restore(best)

    def _n_reused(self, ids: Sequence[int], prompt: Sequence[int]) -> int:
        """How many of `ids` a prompt goes on from; its own last one is always read again."""
        n = n_common(ids, prompt[:-1])
        return n if n == len(ids) or self._engine.can_shorten else 0

    def _save(self) -> None:
        saved = self._engine.save()
        for other in [*self._saved.values()]:
            if saved.ids[: len(other.ids)] == other.ids and self._engine.can_shorten:
                self._forget(other)  # the new one begins with it
        if saved.ids in self._saved:
            self._forget(saved)
        self._saved[saved.ids] = saved
        self.n_bytes += saved.n_bytes
        while self.n_bytes > self._max_bytes:
            self._forget(next(iter(self._saved.values())))

    def _forget(self, saved: Saved) -> None:
        found = self._saved.pop(saved.ids, None)
        if found is not None:
            self.n_bytes -= found.n_bytes


def n_common(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many ids both begin with."""
    n = min(len(ids), len(others))
    if list(ids[:n]) == list(others[:n]):
        return n
    return next(i for i in range(n) if ids[i] != others[i])
