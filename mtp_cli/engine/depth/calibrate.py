"""Measures what rounds cost on this machine, once, and remembers it.

Owns the first measurement behind `cost.py` and the file that keeps it. It runs rows of any text
through the target and the heads, and keeps the median of several times (of two the less, the one
that other programs disturbed less). Knows nothing of what the rows say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from mtp_cli.engine import tuning
from mtp_cli.engine.depth.cost import CostTable
from mtp_cli.engine.drafters.base import Drafter
from mtp_cli.engine.native import compiled
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH, Floats, TargetLike

_BLOCK = 4  # rows that kernels of ggml take at a time
_TUNED = TUNING.calibration
_ENGINE = Path(__file__).parents[1]
N_CTX_MIN = 64  # the least context that can be measured


def cost_table(
    facts: Sequence[object],
    target: TargetLike,
    drafter: Drafter,
    n_max: int,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """What was measured under these very facts (files, backends, threads), or is measured now."""
    facts = (*facts, _has_room(target, n_max))
    table = _remembered(facts)
    if table is None or len(table.target_s) != n_max:
        table = calibrate(target, drafter, n_max, clock)
        _remember(facts, table)
    return table


def calibrate(
    target: TargetLike,
    drafter: Drafter,
    n_max: int,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """Measure decodes of 1 to n_max rows and the drafter's steps. Both timelines end up empty."""
    bench = _TargetBench(target, clock)
    target_s, switch_s, exact = bench.row_counts(n_max)
    table = CostTable(target_s, bench.growth(target_s), exact=exact, switch_s=switch_s)
    if drafter.max_depth > 0:
        hidden = bench.hidden(min(n_max, MAX_DEPTH + 1))
        if hidden is not None:
            table = _with_heads(table, drafter, hidden, bench.cool_caches, clock)
    target.truncate(0)
    return table


def _has_room(target: TargetLike, n_max: int) -> bool:
    """Whether the context is long enough to measure what its length costs."""
    return target.n_ctx >= _TUNED.n_long + n_max


class _TargetBench:
    """Decodes rows after a prefix, again and again."""

    def __init__(self, target: TargetLike, clock: Callable[[], float]) -> None:
        self._target = target
        self._clock = clock
        target.truncate(0)
        self._prefix = _some_ids(_TUNED.n_short)
        self._rewind()

    def _rewind(self) -> None:
        n_past = self._target.truncate(len(self._prefix))
        if n_past < len(self._prefix):
            self._target.prefill(self._prefix[n_past:], 0, lambda: False)

    def _time(self, ids: Sequence[int]) -> tuple[float, Floats]:
        """Seconds of decoding and choosing from rows of which only the first stands."""
        started = self._clock()
        rows = self._target.decode(ids)
        for row in rows.logits:
            row.argmax()
        logits = rows.logits.copy()
        self._target.truncate(len(self._prefix) + 1)
        elapsed_s = self._clock() - started
        self._rewind()
        return elapsed_s, logits

    def row_counts(self, n_max: int) -> tuple[tuple[float, ...], float, tuple[int, ...]]:
        """Seconds for each row count; what of a decode's is for the one before having had another
        number; and which counts are seen to give the logits of single rows.

        What decides is how many times a single row a decode costs, and a machine's speed moves by
        a tenth from one moment to the next. So every decode is compared with the single rows beside
        it. The most used counts are decoded twice in a row, for the second is like most.
        """
        counts = [n for n in _TUNED.counts if n <= n_max]
        ids = _some_ids(counts[-1])
        single = np.stack([self._target.decode([token]).logits[0].copy() for token in ids])
        self._rewind()
        exact = set(counts)  # 1 stays: on backends that round anew each time it is still plain

        def twice(n: int) -> tuple[float, float]:
            """After another number of rows, and after as many."""
            switched_s, logits = self._time(ids[:n])
            if n > 1 and not np.array_equal(logits, single[:n]):
                exact.discard(n)
            return switched_s, self._time(ids[:n])[0]

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
        return interpolated(counts, [one_s, *rest_s], n_max), switch_s, tuple(sorted(exact))

    def growth(self, target_s: Sequence[float]) -> tuple[float, ...]:
        """Seconds that each token of context adds to 1, 2, ... rows; zeros where unaffordable."""
        n_max, n_more = len(target_s), _TUNED.n_long - _TUNED.n_short
        is_affordable = n_more * target_s[-1] / n_max < _TUNED.long_s
        if not is_affordable or not _has_room(self._target, n_max):
            return (0.0,) * n_max
        self._prefix = _some_ids(_TUNED.n_long)
        self._rewind()
        ends = []
        for n in (1, n_max):
            long_s = statistics.median_low([self._time(_some_ids(n))[0] for _ in range(5)][1:])
            ends.append(max(0.0, long_s - target_s[n - 1]) / n_more)
        first, last = ends
        return tuple(float(g) for g in np.linspace(first, max(first, last), n_max))

    def hidden(self, n_rows: int) -> Floats | None:
        rows = self._target.decode(_some_ids(n_rows))
        return None if rows.hidden is None else rows.hidden.copy()

    def cool_caches(self) -> None:
        """What comes between two drafts: a decode, which leaves no cache warm for the heads."""
        self._rewind()
        self._target.decode(_some_ids(1))


def interpolated(counts: Sequence[int], seconds: Sequence[float], n_max: int) -> tuple[float, ...]:
    """Seconds of 1 to n_max rows from those of some row counts.

    None is held to be dearer than a larger one. Most that seem so were disturbed when they were
    measured, and what is too dear is never tried, so that no round would ever correct it. But those
    that are measured once in a while say nothing of those that are measured often.

    Kernels work on blocks of 4 rows, so that the first row of a block is dear and the others
    are cheap. How much of a block's cost its first row makes is taken from the block before.
    """
    often = [s for n, s in zip(counts, seconds, strict=True) if n <= _TUNED.n_often]
    rarely = np.maximum(seconds[len(often) :], often[-1])
    parts = (np.minimum.accumulate(part[::-1])[::-1] for part in (np.array(often), rarely))
    known = dict(zip(counts, np.concatenate([*parts]).tolist(), strict=True))
    for first in range(_BLOCK + 1, n_max + 1, _BLOCK):
        last, before = first + _BLOCK - 1, first - 1
        if first not in known and {last, before, before - _BLOCK} <= known.keys():
            rise = known[before] - known[before - _BLOCK]
            jump = known[first - _BLOCK] - known[before - _BLOCK]
            share = min(1.0, max(1 / _BLOCK, jump / rise)) if rise > 0 else 1.0
            known[first] = known[before] + share * (known[last] - known[before])
    xs = sorted(known)
    return tuple(np.interp(range(1, n_max + 1), xs, [known[x] for x in xs]).tolist())


def _with_heads(
    table: CostTable,
    drafter: Drafter,
    hidden: Floats,
    cool_caches: Callable[[], None],
    clock: Callable[[], float],
) -> CostTable:
    """Add the drafter's first step, its catch-up rows and its further steps."""
    drafter.truncate(0)
    position = 0

    def draft_s(n_rows: int, depth: int) -> tuple[int, float]:
        """Show it n_rows more rows and draft; rows it caught up with, and seconds."""
        nonlocal position
        drafter.observe(_some_ids(n_rows), position, hidden[:n_rows])
        position += n_rows
        n_waiting = drafter.n_waiting
        cool_caches()
        started = clock()
        drafter.draft(1, depth)
        return n_waiting, clock() - started

    n_many, depth = len(hidden), min(4, drafter.max_depth)
    # The first deep draft lets heads of later ids read what they missed; the second is measured.
    shapes = ((1, 1), (n_many, 1), (1, depth), (1, depth))
    draft_s(*shapes[0])  # the first draft of all has fewer rows to catch up with
    seen = [[draft_s(*shape) for shape in shapes] for _ in range(4)]
    (few, few_s), (many, many_s), _, (_, deep_s) = map(_typical, zip(*seen, strict=True))
    drafter.truncate(0)
    row_s = max(0.0, many_s - few_s) / max(1, many - few)
    return dataclasses.replace(
        table,
        first_s=max(few_s - few * row_s, 1e-6),
        row_s=row_s,
        step_s=max((deep_s - few_s) / max(1, depth - 1), 1e-6),
    )


def _typical(drafts: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """The one of the median time, of the drafts that caught up with as few rows as any."""
    n_rows = min(n for n, _ in drafts)
    return n_rows, statistics.median_low(seconds for n, seconds in drafts if n == n_rows)


def _some_ids(n: int) -> list[int]:
    """Ordinary ids that every vocabulary has."""
    return [7 * i % 61 + 1 for i in range(n)]


def _remembered(facts: Sequence[object]) -> CostTable | None:
    return _read().get(_key(facts))


def _remember(facts: Sequence[object], table: CostTable) -> None:
    """Best effort: without a cache the next start measures again."""
    tables = {**_read(), _key(facts): table}
    kept = {key: dataclasses.asdict(tables[key]) for key in list(tables)[-_TUNED.n_remembered :]}
    path = _path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(kept, file)
        os.replace(file.name, path)


def _path() -> Path:
    return Path(platformdirs.user_cache_dir("mtp-cli")) / "costs.json"


def _key(facts: Sequence[object]) -> str:
    machine = (platform.node(), platform.machine(), platform.processor(), os.cpu_count())
    return hashlib.sha256(repr((_measured_by(), *facts, machine)).encode()).hexdigest()


@functools.cache
def _measured_by() -> str:
    """What tells the code that was measured, and that measures, from any other.

    The compiled code, and the Python that chooses kernels or times them. When any of it changes,
    costs and exact row counts that were found before hold no more; `--exact` would believe them.
    """
    digest = hashlib.sha256(compiled.digest().encode())
    for path in (
        *sorted((_ENGINE / "backend").glob("*.py")),
        Path(__file__),
        Path(tuning.__file__),
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read() -> dict[str, CostTable]:
    """What the file holds, without what is no table: that is measured again and replaced."""
    try:
        entries = json.loads(_path().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    tables = {key: _table(entry) for key, entry in entries.items()}
    return {key: table for key, table in tables.items() if table is not None}


def _table(entry: object) -> CostTable | None:
    """An entry of the file as the table it was written from; None when it cannot be one."""
    fields = {field.name for field in dataclasses.fields(CostTable)}
    if not isinstance(entry, dict) or entry.keys() != fields:
        return None
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    table = CostTable(**values)
    return table if _is_sound(table) else None


def _is_sound(table: CostTable) -> bool:
    """Whether what was read has the types of a table and values that can be seconds."""
    series = (table.target_s, table.growth_s)
    steps = (table.first_s, table.row_s, table.step_s, table.switch_s)
    if not all(isinstance(values, tuple) for values in (*series, table.exact)):
        return False
    if not all(type(value) is float for value in (*itertools.chain(*series), *steps)):
        return False
    n_max = len(table.target_s)
    return (
        len(table.growth_s) == n_max
        and all(0 < seconds < math.inf for seconds in table.target_s)
        and all(
            0 <= seconds < math.inf for seconds in (*table.growth_s, table.row_s, table.switch_s)
        )
        and all(seconds > 0 for seconds in (table.first_s, table.step_s))
        and all(type(n) is int and 1 <= n <= n_max for n in table.exact)
        and 1 in table.exact
    )
