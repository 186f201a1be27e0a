"""What a run came to: acceptance by position and kind of prompt, its curve, speed with and without.

Owns the three files, `report.json`, `report.txt` and, where matplotlib is installed, `report.png`,
in the run's folder. Knows nothing of how any of it was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtp_cli.acceptance import Acceptance
from mtp_train.files import written_whole

_GREY, _BLUE = "#9aa0a6", "#1a66c2"


@dataclass(frozen=True)
class Point:
    """The curve after so many steps: agreement on held-out texts, by draft position."""

    step: int
    hours: float
    forced: list[float]
    tokens_per_round: float


@dataclass(frozen=True)
class Group:
    """A kind of prompt, or all of them. accepted: of the drafts whose predecessors were, by
    position; speeds: tokens a second, plain and with automatic depth."""

    accepted: list[float]
    tokens_per_round: float
    plain: float
    drafting: float


@dataclass(frozen=True)
class Report:
    target: str
    n_tokens: int
    groups: dict[str, Group]
    curve: list[Point]

    def text(self) -> str:
        """For a terminal: a table, a line for each kind of prompt, and the curve below."""
        lines = [f"{self.target}: trained on {self.n_tokens:,} tokens of its own text", ""]
        lines += [f"{'':18} {'accepted':17} a round  plain  drafting"]
        for name, group in self.groups.items():
            accepted = " ".join(f"{rate:.3f}" for rate in group.accepted)
            lines.append(
                f"{name:18} {accepted:17} {group.tokens_per_round:7.2f} "
                f"{group.plain:6.1f} {group.drafting:9.1f}"
            )
        lines += ["", "  step  hours  held-out texts   a round"]
        for point in self.curve:
            forced = " ".join(f"{rate:.3f}" for rate in point.forced)
            lines.append(
                f"{point.step:6} {point.hours:6.2f}  {forced:17} {point.tokens_per_round:6.2f}"
            )
        return "\n".join(lines) + "\n"


def group_of(counts: Acceptance, plain: float, drafting: float) -> Group:
    return Group(counts.conditional, counts.tokens_per_round, plain, drafting)


def read_curve(folder: Path) -> list[Point]:
    """The points of a run's log, in order; none where it has no log."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [_point(json.loads(line)) for line in lines]


def _point(entry: Mapping[str, Any]) -> Point:
    hours = entry["seconds"] / 3600
    return Point(entry["step"], hours, entry["forced"], entry["tokens_per_round"])


def write_report(folder: Path, report: Report) -> list[Path]:
    """The files that were written."""
    written = [folder / "report.json", folder / "report.txt"]
    with written_whole(written[0]) as partial:
        partial.write_text(json.dumps(asdict(report), indent=1) + "\n")
    with written_whole(written[1]) as partial:
        partial.write_text(report.text())
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return written
    with written_whole(folder / "report.png") as partial:
        _draw(Figure(figsize=(9, 6), layout="constrained"), report).savefig(partial, format="png")
    return [*written, folder / "report.png"]


def _draw(figure: Any, report: Report) -> Any:
    """Acceptance by kind of prompt, speed with and without, and the curve below both."""
    axes = figure.subplot_mosaic([["accepted", "speed"], ["curve", "curve"]])
    names, groups = list(report.groups), list(report.groups.values())
    places = range(len(names))
    for k in range(len(groups[0].accepted)):
        rates = [group.accepted[k] for group in groups]
        axes["accepted"].plot(rates, places, "o", label=f"draft {k + 1}", color=f"C{k}")
    axes["accepted"].set(title="Accepted where the one before was", xlim=(0, 1))
    for label, color, shift in (("plain", _GREY, 0.2), ("drafting", _BLUE, -0.2)):
        speeds = [getattr(group, label) for group in groups]
        at = [place + shift for place in places]
        axes["speed"].barh(at, speeds, 0.38, color=color, label=label)
    axes["speed"].set(title="Tokens a second")
    for name in ("accepted", "speed"):
        axes[name].set_yticks(list(places), names)
        axes[name].invert_yaxis()
        # Below: inside it would lie on a bar or a point.
        axes[name].legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    steps = [point.step for point in report.curve]
    for k in range(len(report.curve[0].forced) if report.curve else 0):
        rates = [point.forced[k] for point in report.curve]
        axes["curve"].plot(steps, rates, "o-", label=f"draft {k + 1}")
    axes["curve"].set(title="Agreement on held-out texts", xlabel="step", ylim=(0, 1))
    axes["curve"].set_xlim(left=0)
    if report.curve:
        axes["curve"].legend(loc="upper left")
    return figure
