"""Measures what rounds cost on this machine, once, and remembers it.

Owns the first measurement behind `cost.py` and the file that keeps it. It runs rows of any ids
through the target and the heads, and keeps the median of several times (of two the less, the one
that other programs disturbed less). Knows nothing of what the rows say.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mtp_cli.engine.depth.cost import CostTable, interpolated, is_sound
from mtp_cli.engine.depth.remembered import Remembered
from mtp_cli.engine.drafters.base import Drafter
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH, Floats, TargetLike

_TUNED = TUNING.calibration
_GOLDEN = (5**0.5 - 1) / 2  # its multiples lie apart from each other, modulo 1
N_CTX_MIN = 64  # the least context that can be measured


def _from_json(entry: object) -> CostTable | None:
    """An entry of the file as the table it was written from; None when it cannot be one."""
    fields = {field.name for field in dataclasses.fields(CostTable)}
    if not isinstance(entry, dict) or entry.keys() != fields:
        return None
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    table = CostTable(**values)
    return table if is_sound(table) else None


TABLES = Remembered("costs.json", _TUNED.n_remembered, dataclasses.asdict, _from_json)


def cost_table(
    facts: Sequence[object],
    target: TargetLike,
    drafter: Drafter,
    n_max: int,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """What was measured under these very facts (files, backends, threads), or is measured now."""
    facts = table_facts(facts, target, n_max)
    table = TABLES.get(facts)
    if table is None or len(table.target_s) != n_max:
        table = calibrate(target, drafter, n_max, clock)
        TABLES.put(facts, table)
    return table


def table_facts(facts: Sequence[object], target: TargetLike, n_max: int) -> tuple[object, ...]:
    """What a table holds under: a short context cannot show what its length costs."""
    return (*facts, n_max, _has_room(target, n_max))


def calibrate(
    target: TargetLike,
    drafter: Drafter,
    n_max: int,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """Measure decodes of 1 to n_max rows and the drafter's steps. Both timelines end up empty."""
    bench = _TargetBench(target, clock)
    target_s, switch_s = bench.row_counts(n_max)
    table = CostTable(target_s, bench.growth(target_s), switch_s=switch_s)
    if drafter.max_depth > 0:
        n_rows = min(n_max, MAX_DEPTH + 1)
        table = _with_drafts(table, drafter, n_rows, bench.hidden(n_rows), bench, clock)
    target.truncate(0)
    return table


def spread_ids(n: int, n_vocab: int) -> list[int]:
    """Ids from all over a vocabulary: their rows differ, and choose experts, as a text's do.

    Ids that lie together may be unused ones, whose rows are alike.
    """
    return [int((i + 1) * _GOLDEN % 1 * n_vocab) for i in range(n)]


def _has_room(target: TargetLike, n_max: int) -> bool:
    """Whether the context is long enough to measure what its length costs."""
    return target.n_ctx >= _TUNED.n_long + n_max


class _TargetBench:
    """Decodes rows after a prefix, again and again."""

    def __init__(self, target: TargetLike, clock: Callable[[], float]) -> None:
        self._target = target
        self._clock = clock
        target.truncate(0)
        self._n_vocab = target.decode([1]).logits.shape[1]
        target.truncate(0)
        self._prefix = self.ids(_TUNED.n_short)
        self._rewind()

    def ids(self, n: int) -> list[int]:
        return spread_ids(n, self._n_vocab)

    def _rewind(self) -> None:
        n_past = self._target.truncate(len(self._prefix))
        if n_past < len(self._prefix):
            self._target.prefill(self._prefix[n_past:], 0, lambda: False)

    def _time(self, ids: Sequence[int]) -> float:
        """Seconds of decoding and choosing from rows of which only the first stands."""
        started = self._clock()
        rows = self._target.decode(ids)
        for row in rows.logits:
            row.argmax()
        self._target.truncate(len(self._prefix) + 1)
        elapsed_s = self._clock() - started
        self._rewind()
        return elapsed_s

    def row_counts(self, n_max: int) -> tuple[tuple[float, ...], float]:
        """Seconds for each row count, and what a decode takes longer after another number of rows.

        What decides is how many times a single row a decode costs, and a machine's speed moves by
        a tenth from one moment to the next. So every decode is compared with the single rows beside
        it. The most used counts are decoded twice in a row, for the second is like most.
        """
        counts = [n for n in _TUNED.counts if n <= n_max]
        ids = self.ids(counts[-1])

        def twice(n: int) -> tuple[float, float]:
            """After another number of rows, and after as many."""
            return self._time(ids[:n]), self._time(ids[:n])

        started = self._clock()
        ratios: dict[int, list[float]] = {n: [] for n in counts}
        singles = [twice(1)[1]]
        switches: list[float] = []
        for n_passes in itertools.count():
            if n_passes > 1 and self._clock() - started > _TUNED.target_s:
                break
            for n in counts[1:]:
                if n_passes % _TUNED.rarely and n > _TUNED.n_often:
                    continue
                switched_s, same_s = twice(n)
                single_switched_s, single_s = twice(1)
                ratios[n].append(2 * same_s / (singles[-1] + single_s))
                singles.append(single_s)
                switches += [switched_s - same_s, single_switched_s - single_s]
        one_s = statistics.median_low(singles)
        rest_s = [one_s * statistics.median_low(ratios[n]) for n in counts[1:]]
        switch_s = max(0.0, statistics.median(switches))
        return interpolated(counts, [one_s, *rest_s], n_max), switch_s

    def growth(self, target_s: Sequence[float]) -> tuple[float, ...]:
        """Seconds that each token of context adds to 1, 2, ... rows; zeros where unaffordable."""
        n_max, n_more = len(target_s), _TUNED.n_long - _TUNED.n_short
        is_affordable = n_more * target_s[-1] / n_max < _TUNED.long_s
        if not is_affordable or not _has_room(self._target, n_max):
            return (0.0,) * n_max
        self._prefix = self.ids(_TUNED.n_long)
        self._rewind()
        ends = []
        for n in (1, n_max):
            long_s = statistics.median_low([self._time(self.ids(n)) for _ in range(5)][1:])
            ends.append(max(0.0, long_s - target_s[n - 1]) / n_more)
        first, last = ends
        return tuple(float(g) for g in np.linspace(first, max(first, last), n_max))

    def hidden(self, n_rows: int) -> Floats | None:
        rows = self._target.decode(self.ids(n_rows))
        return None if rows.hidden is None else rows.hidden.copy()

    def cool_caches(self) -> None:
        """What comes between two drafts: a decode, which leaves no cache warm for the heads."""
        self._rewind()
        self._target.decode(self.ids(1))


def _with_drafts(
    table: CostTable,
    drafter: Drafter,
    n_many: int,
    hidden: Floats | None,
    bench: _TargetBench,
    clock: Callable[[], float],
) -> CostTable:
    """Add the drafter's first step, its catch-up rows, n_many at most, and its further steps."""
    drafter.truncate(0)
    position, is_block = 0, False

    def draft_s(n_rows: int, depth: int) -> tuple[int, float]:
        """Show it n_rows more rows and draft; rows it caught up with, and seconds."""
        nonlocal position, is_block
        rows = None if hidden is None else hidden[:n_rows]
        drafter.observe(bench.ids(n_rows), position, rows)
        position += n_rows
        n_waiting = drafter.n_waiting
        bench.cool_caches()
        started = clock()
        is_block = drafter.draft(1, depth).is_block
        return n_waiting, clock() - started

    depth = min(4, drafter.max_depth)
    draft_s(1, 1)  # the first draft of all has fewer rows to catch up with
    # The first deep draft lets heads of later ids read what they missed; the second is measured.
    shapes = [(1, 1), (n_many, 1), (1, depth), (1, depth)]
    if is_block:  # to choose its ids takes a while, too, and belongs to the one pass
        shapes = [(1, drafter.max_depth), (n_many, drafter.max_depth)]
    seen = [[draft_s(*shape) for shape in shapes] for _ in range(4)]
    (few, few_s), (many, many_s), *deeper = map(_typical, zip(*seen, strict=True))
    drafter.truncate(0)
    row_s = max(0.0, many_s - few_s) / max(1, many - few)
    steps_s = [deep_s - few_s for _, deep_s in deeper]
    return dataclasses.replace(
        table,
        first_s=max(few_s - few * row_s, 1e-6),
        row_s=row_s,
        step_s=0.0 if is_block else max(steps_s[-1] / max(1, depth - 1), 1e-6),
    )


def _typical(drafts: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """The one of the median time, of the drafts that caught up with as few rows as any."""
    n_rows = min(n for n, _ in drafts)
    return n_rows, statistics.median_low(seconds for n, seconds in drafts if n == n_rows)
