"""What the records say: ratios within each prompt, medians over repetitions, means over classes.

Pure. A ratio is to the plain answer that was decoded beside. Everything here is taken from greedy
answers unless a temperature is asked for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mtp_cli.bench.bound import clairvoyant_s
from mtp_cli.bench.measure import Record, Result
from mtp_cli.engine import Depth
from mtp_cli.engine.depth.cost import CostModel

Ratios = dict[str, float]
_TO_DEVIATION = 1.4826  # of a normal distribution, over the median distance from its median


@dataclass(frozen=True)
class Spread:
    """A median and the range around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


class Comparison:
    """The records of one temperature, compared within each class and repetition."""

    def __init__(self, records: Sequence[Record], temperature: float = 0.0) -> None:
        self._records: dict[tuple[str, Depth], list[Record]] = {}
        for record in records:
            if record.temperature == temperature:
                self._records.setdefault((record.cls, record.depth), []).append(record)
        self.classes = list(dict.fromkeys(cls for cls, _ in self._records))
        self.depths = list(dict.fromkeys(depth for _, depth in self._records))
        plain = [r.over_beside for r in records if (r.temperature, r.depth) == (temperature, 0)]
        self._of_equals = statistics.median(plain) if plain else 1.0

    def plain(self, cls: str) -> Spread:
        """Tokens per second of plain decoding."""
        return Spread.of([record.tokens_per_s for record in self._records[cls, 0]])

    def over_plain(self, cls: str, depth: Depth) -> Spread:
        """Times the plain answer beside, where plain beside plain is 1 over all classes."""
        return Spread.of([self._over_plain(record) for record in self._records[cls, depth]])

    def _over_plain(self, record: Record) -> float:
        return record.over_beside / self._of_equals

    def best_static(self, cls: str) -> tuple[Depth, float]:
        """The fixed depth that serves this class best, and how well; at depth 0 that is 1."""
        fixed = [depth for depth in self.depths if depth not in (0, "auto")]
        ratios = {0: 1.0, **{depth: self.over_plain(cls, depth).median for depth in fixed}}
        return max(ratios.items(), key=lambda pair: pair[1])

    def of_bound(self, cls: str, bounds: Mapping[tuple[str, int], float]) -> float:
        """auto over the clairvoyant bound, both taken over plain within each repetition."""
        return statistics.median(
            self._over_plain(record) / bounds[cls, record.repetition]
            for record in self._records[cls, "auto"]
        )


# Plain beside plain deviates by 0.014 on an idle machine (LOG.md, 2026-11-22, "Round by round") and
# by 0.56 with six times as many busy threads as cores. Above this, a few percent are noise.
MOST_DEVIATION = 0.05
_FEWEST_PAIRS = 4  # fewer say nothing about how far they spread


@dataclass(frozen=True)
class Steadiness:
    """How far plain answers differ from the plain answers beside them, which should be as fast.

    deviation: robust standard deviation of the logarithms of n_pairs ratios, about the median of
               their temperature; None where there are too few
    """

    n_pairs: int
    deviation: float | None

    @property
    def is_too_busy(self) -> bool:
        return self.deviation is not None and self.deviation > MOST_DEVIATION


def steadiness(records: Iterable[Record]) -> Steadiness:
    """Of the machine, while it was measured."""
    logarithms: dict[float, list[float]] = {}
    for record in records:
        if record.depth == 0:
            logarithms.setdefault(record.temperature, []).append(math.log(record.over_beside))
    off = [abs(x - statistics.median(xs)) for xs in logarithms.values() for x in xs]
    if len(off) < _FEWEST_PAIRS:
        return Steadiness(len(off), None)
    return Steadiness(len(off), _TO_DEVIATION * statistics.median(off))


def bounds_over_plain(result: Result, cost: CostModel) -> dict[tuple[str, int], float]:
    """How much faster than plain a clairvoyant policy would be, for each recorded answer."""
    bounds = {}
    for key, trace in result.traces.items():
        n_rounds = len(trace.tokens) - 1
        plain_s = sum(cost.verify_s(1, len(trace.prompt) + r) for r in range(n_rounds))
        bounds[key] = plain_s / clairvoyant_s(trace, cost) if n_rounds else 1.0
    return bounds


def forks(records: Iterable[Record]) -> dict[str, tuple[int, int]]:
    """For each depth: greedy answers that are not plain decoding's, and greedy answers."""
    found: dict[str, tuple[int, int]] = {}
    for record in records:
        if record.temperature == 0:
            n_forks, n_answers = found.get(str(record.depth), (0, 0))
            found[str(record.depth)] = (n_forks + record.is_fork, n_answers + 1)
    return found


def summary(result: Result, cost: CostModel) -> dict[str, Ratios]:
    """The summary of the greedy answers, as the JSON file has it."""
    greedy = Comparison(result.records)
    found: dict[str, Ratios] = {
        "plain_tokens_per_s": _by_class(greedy, lambda cls: greedy.plain(cls).median)
    }
    if "auto" in greedy.depths:
        bounds = bounds_over_plain(result, cost)

        def over_plain(cls: str) -> float:
            return greedy.over_plain(cls, "auto").median

        found["auto_over_plain"] = _by_class(greedy, over_plain)
        found["auto_over_best_static"] = _by_class(
            greedy, lambda cls: over_plain(cls) / greedy.best_static(cls)[1]
        )
        found["auto_over_bound"] = _by_class(greedy, lambda cls: greedy.of_bound(cls, bounds))
    return found


def over_plain(records: Sequence[Record]) -> dict[str, dict[str, Ratios]]:
    """For each temperature and depth: times plain decoding by class, medians over repetitions."""
    temperatures = dict.fromkeys(record.temperature for record in records)
    return {f"{t:g}": _over_plain_at(Comparison(records, t)) for t in temperatures}


def _over_plain_at(found: Comparison) -> dict[str, Ratios]:
    def ratios(depth: Depth) -> Ratios:
        return _by_class(found, lambda cls: found.over_plain(cls, depth).median)

    return {str(depth): ratios(depth) for depth in found.depths}


def _by_class(found: Comparison, value: Callable[[str], float]) -> Ratios:
    ratios = {cls: value(cls) for cls in found.classes}
    if ratios:
        values = list(ratios.values())
        ratios |= {"geomean": statistics.geometric_mean(values), "worst": min(values)}
    return ratios
