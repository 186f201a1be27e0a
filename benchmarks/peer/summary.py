"""What the records say of the two tools. Pure.

Every ratio is of two speeds on one prompt; its median over the repetitions of a class, then over
the classes the geometric mean and the worst.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.peer.compare import BESIDE, OURS, PEER, Record
from benchmarks.peer.server import DEFAULTS, DEPTHS, PLAIN

Key = tuple[str, str]  # a tool and one of its settings
OUR_PLAIN = (OURS, "plain")
PEER_PLAIN, PEER_DEFAULTS = (PEER, PLAIN.name), (PEER, DEFAULTS.name)


@dataclass(frozen=True)
class Row:
    """One line of the bar: what was compared, with what, and the least that is asked for.

    tool:     OURS or BESIDE
    at_least: asked of the geometric mean; worst_at_least: of the worst class
    """

    tool: str
    name: str
    against: str
    ratios: dict[str, float]
    at_least: float
    worst_at_least: float = 0.0

    @property
    def is_met(self) -> bool:
        is_met = self.ratios["geomean"] >= self.at_least
        return is_met and self.ratios["worst"] >= self.worst_at_least


class Speeds:
    """Tokens per second by setting, class and repetition."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._speeds: dict[Key, dict[tuple[str, int], float]] = {}
        for record in records:
            of_key = self._speeds.setdefault((record.tool, record.setting), {})
            of_key[record.cls, record.repetition] = record.tokens_per_s
        places = next(iter(self._speeds.values()), {})
        self.classes = list(dict.fromkeys(cls for cls, _ in places))

    @property
    def keys(self) -> list[Key]:
        return list(self._speeds)

    def our_tools(self) -> list[str]:
        return [tool for tool in (OURS, BESIDE) if self.settings(tool)]

    def settings(self, tool: str) -> list[str]:
        return [setting for found, setting in self._speeds if found == tool]

    def median(self, key: Key, cls: str) -> float:
        return statistics.median(v for place, v in self._speeds[key].items() if place[0] == cls)

    def mean(self, key: Key) -> float:
        return statistics.geometric_mean(self.median(key, cls) for cls in self.classes)

    def ratio(self, key: Key, other: Key) -> dict[str, float]:
        """By class, then "geomean" and "worst"."""
        ours, theirs = self._speeds[key], self._speeds[other]
        found = {
            cls: statistics.median(v / theirs[at] for at, v in ours.items() if at[0] == cls)
            for cls in self.classes
        }
        return _with_means(found)

    def best_peer(self) -> str:
        """llama-server's setting that is fastest over all classes, plain decoding among them."""
        return max(
            self.settings(PEER), key=lambda name: self.ratio((PEER, name), PEER_PLAIN)["geomean"]
        )

    def best_of_class(self) -> dict[str, str]:
        """llama-server's fastest setting in each class, chosen with hindsight."""
        ratios = {name: self.ratio((PEER, name), PEER_PLAIN) for name in self.settings(PEER)}
        return {cls: max(ratios, key=lambda name: ratios[name][cls]) for cls in self.classes}

    def best_of_class_over_plain(self) -> dict[str, float]:
        best = self.best_of_class()
        return _with_means({c: self.ratio((PEER, best[c]), PEER_PLAIN)[c] for c in self.classes})

    def over_best_of_class(self, key: Key) -> dict[str, float]:
        best = self.best_of_class()
        return _with_means({c: self.ratio(key, (PEER, best[c]))[c] for c in self.classes})


def _with_means(found: dict[str, float]) -> dict[str, float]:
    means = statistics.geometric_mean(found.values()), min(found.values())
    return {**found, "geomean": means[0], "worst": means[1]}


def bar(speeds: Speeds) -> list[Row]:
    """The lines of the bar that this run can answer."""
    best = speeds.best_peer()
    if PEER_DEFAULTS not in speeds.keys:
        auto = (OURS, "auto")
        return [
            Row(OURS, "plain", "plain", speeds.ratio(OUR_PLAIN, PEER_PLAIN), 1.0),
            Row(OURS, "automatic", f"its best: {best}", speeds.ratio(auto, (PEER, best)), 1.25),
            Row(OURS, "automatic", "its best of each class", speeds.over_best_of_class(auto), 1.25,
                worst_at_least=1.1),
        ]  # fmt: skip
    rows = [Row(OURS, "plain", "plain", speeds.ratio(OUR_PLAIN, PEER_PLAIN), 1.0)]
    for tool in speeds.our_tools():
        auto = (tool, "auto")
        rows += [
            Row(tool, "automatic", PEER_DEFAULTS[1], speeds.ratio(auto, PEER_DEFAULTS), 1.5),
            Row(tool, "automatic", f"its best: {best}", speeds.ratio(auto, (PEER, best)), 1.05),
        ]
        depths = same_depth(speeds, tool)
        rows += [Row(tool, name, name, ratios, 1.25) for name, ratios in depths.items()]
    return rows


def same_depth(speeds: Speeds, tool: str) -> dict[str, dict[str, float]]:
    """Ours over llama-server's at each fixed depth."""
    names = [f"depth {n}" for n in DEPTHS]
    return {name: speeds.ratio((tool, name), (PEER, name)) for name in names}


def summary(records: list[Record]) -> dict[str, Any]:
    """The JSON file's `summary`: ratios as objects of class -> ratio with geomean and worst."""
    if not records:
        return {}
    speeds = Speeds(records)
    tools = (*speeds.our_tools(), PEER)
    return {
        "peer_best_setting": speeds.best_peer(),
        "peer_best_of_class": speeds.best_of_class(),
        "peer_best_of_class_over_plain": speeds.best_of_class_over_plain(),
        "plain_over_peer_plain": speeds.ratio(OUR_PLAIN, PEER_PLAIN),
        **_drafting(speeds, OURS),
        **({"beside": _drafting(speeds, BESIDE)} if BESIDE in tools else {}),
        "forks": {tool: sum(r.is_fork for r in records if r.tool == tool) for tool in tools},
    }


def _drafting(speeds: Speeds, tool: str) -> dict[str, Any]:
    """Without heads nothing is compared with a fixed depth."""
    auto, best = (tool, "auto"), (PEER, speeds.best_peer())
    found: dict[str, Any] = {
        "auto_over_peer_best": speeds.ratio(auto, best),
        "auto_over_peer_best_of_class": speeds.over_best_of_class(auto),
        "auto_over_plain": speeds.ratio(auto, OUR_PLAIN),
    }
    if PEER_DEFAULTS in speeds.keys:
        found["auto_over_peer_defaults"] = speeds.ratio(auto, PEER_DEFAULTS)
        found["ours_over_peer_same_depth"] = same_depth(speeds, tool)
    return found
