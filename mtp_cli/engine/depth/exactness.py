"""Which row counts give every row the bits that it has alone: found out, and watched, on real text.

Owns the comparison behind `--exact`. Nothing is believed of a format or a machine beforehand: a row
count may be verified once rows of this model's own text came out of it to the bit as they do alone,
and goes on being compared; one difference ends the belief in it. Other tests mislead: rows of
unused ids come out alike in companies where rows of text do not.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtp_cli.engine.depth.remembered import Remembered
from mtp_cli.engine.stats import Stats
from mtp_cli.engine.tuning import TUNING, ExactnessTuning
from mtp_cli.engine.types import MAX_COPIED, OnRead, Rows, TargetLike
from mtp_cli.errors import MtpError


class Exactness:
    """What is known of each row count, 2 to n_max; a single row is what the others are held to.

    A count is proven for one size of context at a time, doubling from 256 cells on, since kernels
    of attention change with it; a difference at any size refuses it at all.

    n_past: tokens of context now, which decides what is in it
    """

    def __init__(self, n_max: int, tuning: ExactnessTuning = TUNING.exactness) -> None:
        self._n_proofs = tuning.n_proofs
        self._candidates = [n for n in tuning.counts if n <= n_max]
        self._agreed: dict[tuple[int, int], int] = {}  # (size of context, rows) -> how often
        self._refused: set[int] = set()
        self.n_past = 0

    def __contains__(self, n_rows: object) -> bool:
        """Whether so many rows may be verified together."""
        return n_rows == 1 or (isinstance(n_rows, int) and self._is_proven(n_rows))

    def _is_proven(self, n_rows: int) -> bool:
        n_agreed = self._agreed.get((_size(self.n_past), n_rows), 0)
        return n_rows not in self._refused and n_agreed >= self._n_proofs

    @property
    def proven(self) -> tuple[int, ...]:
        """1, and the row counts that are believed to change no bit."""
        return (1, *filter(self._is_proven, self._candidates))

    def is_refused(self, n_rows: int) -> bool:
        """Whether it never will be in: a difference was seen, or it is not tried."""
        return n_rows in self._refused or (n_rows > 1 and n_rows not in self._candidates)

    def to_prove(self, room: int) -> int | None:
        """The count to try next, at most `room` rows: the smallest that is not settled."""
        for n_rows in self._candidates:
            if n_rows <= room and n_rows not in self._refused and not self._is_proven(n_rows):
                return n_rows
        return None

    def note(self, n_rows: int, agrees: bool) -> None:
        """Rows of a decode of so many were, or were not, what they are alone."""
        key = _size(self.n_past), n_rows
        if agrees:
            self._agreed[key] = self._agreed.get(key, 0) + 1
        else:
            self._refused.add(n_rows)

    def to_json(self) -> dict[str, Any]:
        agreed = [[*key, n] for key, n in sorted(self._agreed.items())]
        return {"agreed": agreed, "refused": sorted(self._refused)}

    @classmethod
    def from_json(cls, entry: Any, n_max: int) -> Exactness | None:
        """As `to_json` wrote it; None where it cannot have."""
        known = cls(n_max)
        try:
            agreed = {(size, n_rows): n for size, n_rows, n in entry["agreed"]}
            refused = set(entry["refused"])
        except (KeyError, TypeError, ValueError):
            return None
        numbers = [*refused, *agreed.values(), *itertools.chain(*agreed)]
        if not all(type(number) is int and number >= 0 for number in numbers):
            return None
        known._agreed, known._refused = agreed, refused
        return known


def _size(n_past: int) -> int:
    """0 for up to 256 cells, the rows of a round included, and 1 more each time they double."""
    return max(0, math.ceil(math.log2((n_past + MAX_COPIED + 1) / 256)))


def remembered(n_max: int) -> Remembered[Exactness]:
    """Where what is known is kept."""
    return Remembered(
        "exact.json",
        TUNING.calibration.n_remembered,
        Exactness.to_json,
        lambda entry: Exactness.from_json(entry, n_max),
    )


class CheckedTarget:
    """A target whose decodes are compared with single rows, by and by, while it answers.

    Before a decode, its first row is decoded alone and beside others, and both are dropped again.
    Of a proven count the first decodes are checked, and then one in many: every row is decoded
    alone as well. Comparing takes a bounded share of the time, which `clock` leaves out, so that it
    is no round's cost.

    can_repeat: whether all rows of the last decode can be dropped again, as recurrent memories
                cannot; without, nothing is proven and single rows are all there is
    """

    def __init__(
        self,
        target: TargetLike,
        exactness: Exactness,
        *,
        can_repeat: bool,
        clock: Callable[[], float] = time.perf_counter,
        tuning: ExactnessTuning = TUNING.exactness,
    ) -> None:
        self._target = target
        self._exactness = exactness
        self._can_repeat = can_repeat
        self._clock = clock
        self._tuning = tuning
        self._spent_s = 0.0
        self._started = clock()
        self._n_used: dict[int, int] = {}
        self.n_ctx = target.n_ctx
        self.ids = target.ids  # the very list: targets change it in place
        self.stats = Stats()  # the answer's, once there is one

    def clock(self) -> float:
        """Seconds, without those spent on comparing."""
        return self._clock() - self._spent_s

    def prefill(
        self,
        tokens: Sequence[int],
        n_hidden: int,
        is_stopped: Callable[[], bool],
        on_read: OnRead = None,
    ) -> Rows | None:
        rows = self._target.prefill(tokens, n_hidden, is_stopped, on_read)
        self._exactness.n_past = len(self.ids)
        return rows

    def truncate(self, n_past: int) -> int:
        n_kept = self._exactness.n_past = self._target.truncate(n_past)
        return n_kept

    def decode(self, tokens: Sequence[int]) -> Rows:
        n_rows = self._to_prove()
        if n_rows is not None:
            self._prove(tokens[0], n_rows)
        if len(tokens) > 1 and self._can_repeat and self._is_check_due(len(tokens)):
            return self._decode_checked(tokens)
        return self._target.decode(tokens)

    def _prove(self, token: int, n_rows: int) -> None:
        """Compare the row of a token alone with its row among so many, and drop both."""
        started, n_past = self._clock(), len(self.ids)
        company = self.ids[-(n_rows - 1) :]  # what the text said: real rows, as a draft's are
        alone = self._target.decode([token]).logits[0].copy()
        self._drop_to(n_past)
        together = self._target.decode([token, *company]).logits[0]
        self._exactness.note(n_rows, np.array_equal(together, alone))
        self._drop_to(n_past)
        self._spend(started)

    def _to_prove(self) -> int | None:
        """The row count to compare with in this decode, None for none."""
        elapsed_s = self._clock() - self._started
        allowed_s = self._tuning.first_s + self._tuning.share * elapsed_s
        if not self._can_repeat or self._spent_s > allowed_s:
            return None
        room = min(self.n_ctx - len(self.ids), len(self.ids) + 1)
        return self._exactness.to_prove(room)

    def _is_check_due(self, n_rows: int) -> bool:
        n_used = self._n_used[n_rows] = self._n_used.get(n_rows, 0) + 1
        return n_used <= self._tuning.n_checked or n_used % self._tuning.check_every == 0

    def _decode_checked(self, tokens: Sequence[int]) -> Rows:
        """The rows together where they agree with the single ones, else the single ones."""
        started, n_past = self._clock(), len(self.ids)
        alone = self._one_by_one(tokens)
        self._drop_to(n_past)
        self._spend(started)
        together = self._target.decode(tokens)
        agrees = np.array_equal(together.logits, alone.logits)
        self._exactness.note(len(tokens), agrees)
        if agrees:
            return together
        self.stats.inexact.append(len(tokens))
        self._drop_to(n_past)
        return self._one_by_one(tokens)

    def _one_by_one(self, tokens: Sequence[int]) -> Rows:
        """Copies of the rows that single decodes give."""
        logits, hidden = [], []
        for token in tokens:
            row = self._target.decode([token])
            logits.append(row.logits[0].copy())
            if row.hidden is not None:
                hidden.append(row.hidden[0].copy())
        return Rows(np.stack(logits), np.stack(hidden) if hidden else None)

    def _drop_to(self, n_past: int) -> None:
        if self._target.truncate(n_past) != n_past:
            raise MtpError("the model's memory could not drop rows that were compared")

    def _spend(self, started: float) -> None:
        seconds = self._clock() - started
        self._spent_s += seconds
        self.stats.checking_s += seconds
