"""What the records say: ratios within each prompt, medians over repetitions, means over classes.

Pure. Everything here is taken from greedy answers unless a temperature is asked for.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mtp_cli.bench.bound import clairvoyant_s
from mtp_cli.bench.measure import Record, Result
from mtp_cli.engine import Depth
from mtp_cli.engine.cost import CostModel

Ratios = dict[str, float]


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

    def __init__(self, records: Iterable[Record], temperature: float = 0.0) -> None:
        self._speed: dict[tuple[str, Depth], dict[int, float]] = {}
        for record in records:
            if record.temperature == temperature:
                speeds = self._speed.setdefault((record.cls, record.depth), {})
                speeds[record.repetition] = record.tokens_per_s
        self.classes = list(dict.fromkeys(cls for cls, _ in self._speed))
        self.depths = list(dict.fromkeys(depth for _, depth in self._speed))

    def plain(self, cls: str) -> Spread:
        """Tokens per second of plain decoding."""
        return Spread.of(list(self._speed[cls, 0].values()))

    def over_plain(self, cls: str, depth: Depth) -> Spread:
        plain = self._speed[cls, 0]
        return Spread.of([v / plain[r] for r, v in self._speed[cls, depth].items()])

    def best_static(self, cls: str) -> tuple[Depth, float]:
        """The fixed depth that serves this class best, plain decoding among them."""
        fixed = [depth for depth in self.depths if depth != "auto"]
        return max(((d, self.over_plain(cls, d).median) for d in fixed), key=lambda pair: pair[1])

    def of_bound(self, cls: str, bounds: Mapping[tuple[str, int], float]) -> float:
        """auto over the clairvoyant bound, both taken over plain within each repetition."""
        plain = self._speed[cls, 0]
        return statistics.median(
            speed / plain[r] / bounds[cls, r] for r, speed in self._speed[cls, "auto"].items()
        )


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
        if record.temperature == 0 and record.depth != 0:
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


def _by_class(greedy: Comparison, value: Callable[[str], float]) -> Ratios:
    ratios = {cls: value(cls) for cls in greedy.classes}
    if ratios:
        found = list(ratios.values())
        ratios |= {"geomean": statistics.geometric_mean(found), "worst": min(found)}
    return ratios
