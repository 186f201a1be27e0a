"""The charts, as SVG. The same numbers give the same bytes.

Owns how they look. A chart carries a digest of its numbers and of this file, so that `--check`
needs no matplotlib, whose versions draw the same in other bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.document.page import FEW_ROWS
from benchmarks.document.real import FILES, peer_of
from benchmarks.document.results import Results
from benchmarks.document.speed import CLASSES, best_fixed, depths_of, recorded_formats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Two of Okabe and Ito's colours, which differ for every kind of colour vision; shapes differ too.
_OURS, _OTHER = "#0072B2", "#D55E00"
_GREY = "#9a9a9a"
_WIDTH = 8.8  # inches at which a font of 9 points is readable at README's width
_COUNTS = range(1, 9)
_STYLE = {
    "svg.hashsalt": "mtp-cli",
    "svg.fonttype": "path",  # the reader's fonts may be wider
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """numbers: all that is drawn, empty where nothing was recorded."""

    numbers: Numbers
    draw: Callable[[Numbers], Figure]

    @property
    def mark(self) -> str:
        """What the SVG of these numbers holds, drawn by today's code."""
        drawn = json.dumps(self.numbers) + Path(__file__).read_text()
        return f"numbers {hashlib.sha256(drawn.encode()).hexdigest()[:16]}"

    def svg(self) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            out = io.StringIO()
            metadata = {"Date": None, "Creator": None, "Description": self.mark}
            self.draw(self.numbers).savefig(out, format="svg", metadata=metadata)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def speed(results: Results) -> Chart:
    """numbers: by format and class, automatic depth and the best fixed one over plain."""
    numbers = {
        name: {
            title: [depths_of(content)["auto"][cls], best_fixed(content, cls)]
            for cls, title in CLASSES.items()
            if cls in depths_of(content)["auto"]
        }
        for name, content in recorded_formats(results).items()
    }
    return Chart(numbers, _draw_speed)


def rows(results: Results) -> Chart:
    """numbers: by format and row count, milliseconds on our kernels and on llama.cpp's."""
    formats: Mapping[str, Any] = results.get(FEW_ROWS, {}).get("formats", {})
    numbers = {
        name.upper(): {
            n: [row["ours_ms"], row["llama_ms"]]
            for n, row in found["rows"].items()
            if int(n) in _COUNTS
        }
        for name, found in formats.items()
    }
    return Chart(numbers, _draw_rows)


def copying(results: Results) -> Chart:
    """numbers: by real file and class, automatic depth over plain, and llama-server's best setting
    over its plain; null where that was not recorded."""
    numbers = {}
    for name, title in FILES.items():
        if name in results:
            ratios = depths_of(results[name])["auto"]
            theirs = results.get(peer_of(name), {}).get("summary", {})
            best = theirs.get("peer_best_of_class_over_plain", {})
            numbers[title] = {
                shown: [ratios[cls], best.get(cls)]
                for cls, shown in CLASSES.items()
                if cls in ratios
            }
    return Chart(numbers, _draw_copying)


def _draw_speed(numbers: Numbers) -> Figure:
    """A panel for each format, a line for each class: two marks and what is between them."""
    from matplotlib.ticker import MultipleLocator

    figure, panels = _panels(len(numbers), height=3.6)
    panels[0].xaxis.set_major_locator(MultipleLocator(1))
    for axes, (name, classes) in zip(panels, numbers.items(), strict=True):
        places = range(len(classes))
        automatic, fixed = zip(*classes.values(), strict=True)
        axes.axvline(1, color=_GREY, linewidth=0.8)
        axes.hlines(places, fixed, automatic, color=_GREY, linewidth=1.2)
        axes.plot(fixed, places, "D", color=_OTHER, markerfacecolor="white", markersize=5,
                  label="best fixed depth of the class")  # fmt: skip
        axes.plot(automatic, places, "o", color=_OURS, markersize=5.5, label="automatic depth")
        axes.set_yticks(places, classes)
        axes.set_title(name)
        axes.grid(axis="x", linewidth=0.3)
    panels[0].invert_yaxis()
    _name(figure, panels, "times plain decoding (1: plain)", "class of prompts")
    return figure


def _draw_copying(numbers: Numbers) -> Figure:
    """A panel for each file, a line for each class."""
    figure, panels = _panels(len(numbers), height=3.6)
    for axes, (name, classes) in zip(panels, numbers.items(), strict=True):
        automatic, theirs = zip(*classes.values(), strict=True)
        asked = [(ratio, place) for place, ratio in enumerate(theirs) if ratio is not None]
        axes.axvline(1, color=_GREY, linewidth=0.8)
        if asked:
            axes.plot(*zip(*asked, strict=True), "D", color=_OTHER, markerfacecolor="white",
                      markersize=5, label="llama-server's best setting of the class")  # fmt: skip
        axes.plot(automatic, range(len(classes)), "o", color=_OURS, markersize=5.5,
                  label="automatic depth")  # fmt: skip
        axes.set_yticks(range(len(classes)), classes)
        axes.set_title(name)
        axes.grid(axis="x", linewidth=0.3)
    panels[0].invert_yaxis()
    _name(figure, panels, "times its own plain decoding (1: plain)", "class of prompts")
    return figure


def _draw_rows(numbers: Numbers) -> Figure:
    figure, panels = _panels(len(numbers), height=2.7)
    for axes, (name, counts) in zip(panels, numbers.items(), strict=True):
        ours, theirs = zip(*counts.values(), strict=True)
        places = [int(n) for n in counts]
        axes.plot(places, theirs, "D-", color=_OTHER, markerfacecolor="white", markersize=4,
                  linewidth=1.2, label="llama.cpp's kernels")  # fmt: skip
        axes.plot(places, ours, "o-", color=_OURS, markersize=4, linewidth=1.6, label="ours")
        axes.set_xticks([1, 2, 4, 6, 8])
        axes.set_title(name)
        axes.grid(axis="y", linewidth=0.3)
    panels[0].set_ylim(bottom=0)  # after all panels: it fixes the top, too
    _name(figure, panels, "rows in one decode", "milliseconds")
    return figure


def _panels(n: int, height: float) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, n, sharex=True, sharey=True, squeeze=False)[0])


def _name(figure: Figure, panels: Sequence[Any], x: str, y: str) -> None:
    """Both axes' names, and one legend above all panels: what any of them shows, once."""
    figure.supxlabel(x, fontsize=9)
    panels[0].set_ylabel(y)
    shown = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    labels, handles = list(shown)[::-1], list(shown.values())[::-1]
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
