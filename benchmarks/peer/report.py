"""Shows the comparison: two tables for people. Computes nothing that summary.py does not."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.peer.compare import BESIDE, OURS, PEER, Record
from benchmarks.peer.summary import PEER_PLAIN, Speeds, bar


def speed_table(speeds: Speeds, model: str, records: list[Record]) -> Table:
    """A row for each setting: its speed, and over llama-server's plain decoding by class."""
    shown = Table(
        title=f"{model}: greedy decoding, tok/s, and times llama-server's plain decoding",
        title_justify="left",
    )
    for name in ("", "setting", "tok/s", "all", *speeds.classes, "accepted"):
        shown.add_column(name, justify="left" if name in ("", "setting") else "right")
    for tool in (OURS, BESIDE, PEER):
        for setting in speeds.settings(tool):
            key = (tool, setting)
            ratio = speeds.ratio(key, PEER_PLAIN)
            over = [f"{ratio[name]:.2f}" for name in ("geomean", *speeds.classes)]
            shown.add_row(tool, setting, f"{speeds.mean(key):.1f}", *over, accepted(records, key))
        shown.add_section()
    return shown


def accepted(records: list[Record], key: tuple[str, str]) -> str:
    """The share of verified draft ids that stayed."""
    found = [r for r in records if (r.tool, r.setting) == key]
    n_verified = sum(r.verified for r in found)
    return f"{sum(r.accepted for r in found) / n_verified:.2f}" if n_verified else ""


def bar_table(speeds: Speeds, model: str) -> Table:
    shown = Table(title=f"{model}: ours over llama-server", title_justify="left")
    numbers = ("geometric mean", "at least", "worst class", "at least")
    names = ("", "setting", "llama-server", *numbers, "")
    for index, name in enumerate(names):
        shown.add_column(name, justify="right" if 3 <= index < 7 else "left")
    for row in bar(speeds):
        pairs = ((row.ratios["geomean"], row.at_least), (row.ratios["worst"], row.worst_at_least))
        cells = [f"{number:.2f}" if number else "" for pair in pairs for number in pair]
        shown.add_row(row.tool, row.name, row.against, *cells, "met" if row.is_met else "short")
    return shown


def show(console: Console, name: str, records: list[Record]) -> None:
    """name: the file's general.name, over every table; of a scaled model it says so."""
    if not records:
        console.print("nothing to compare: every prompt was answered with one token")
        return
    speeds = Speeds(records)
    console.print(speed_table(speeds, name, records))
    console.print(bar_table(speeds, name))
    console.print(
        "llama-server by its own timings.predicted_per_second, ours without the prompt's pass; "
        "both without the first token"
    )
