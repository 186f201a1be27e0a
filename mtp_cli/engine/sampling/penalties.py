"""llama.cpp's repeat, frequency and presence penalties, on one row of logits.

Owns their arithmetic (`llama_sampler_init_penalties`, with which llama.cpp's chain begins). Keeps
no text: every row of a draft follows another one, so the ids that count come with the row.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mtp_cli.engine.types import Floats, Ids

_AS_IT_IS = contextlib.nullcontext()


@dataclass(frozen=True)
class Penalties:
    """What becomes of the logits of the ids that were among the last ones before a row.

    last_n:  how many ids before a row count, the prompt's and its own included
    repeat:  divides a logit, or multiplies it where it is not above 0
    freq:    is then taken off for each time that the id comes
    present: is taken off once
    """

    last_n: int
    repeat: float
    freq: float
    present: float

    @functools.cached_property
    def n_before(self) -> int:
        """How many ids before a row matter; 0 where nothing is penalised."""
        is_off = self.repeat == 1 and self.freq == 0 and self.present == 0
        return 0 if is_off else max(0, self.last_n)

    def on(
        self, logits: Floats, before: Sequence[int], ids: Ids | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Inside, the row is a penalised one; after it, what it was.

        before: the ids that the row follows, `n_before` of them or more where there are as many
        ids:    (len(logits),) the target's id of each place, increasing; None: the place itself
        """
        return self._written(logits, before, ids) if self.n_before else _AS_IT_IS

    @contextlib.contextmanager
    def _written(self, logits: Floats, before: Sequence[int], ids: Ids | None) -> Iterator[None]:
        """Into the row itself, where it changes: rows are long, and those places few."""
        counts = Counter(before[-self.n_before :])
        places = np.fromiter(counts, np.int32, len(counts))
        times = np.fromiter(counts.values(), np.float32, len(counts))
        if ids is not None:
            tokens, places = places, np.minimum(ids.searchsorted(places), len(ids) - 1)
            is_there = ids[places] == tokens
            places, times = places[is_there], times[is_there]
        as_was = logits[places]
        scaled = np.where(as_was > 0, as_was / self.repeat, as_was * self.repeat)
        logits[places] = scaled - (times * self.freq + self.present)
        try:
            yield
        finally:
            logits[places] = as_was
