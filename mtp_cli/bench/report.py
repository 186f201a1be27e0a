"""Shows the result: a table for people, JSON for programs, a plot.

Owns the three forms. Computes nothing that `summary.py` does not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from mtp_cli.bench.measure import Plan, Result
from mtp_cli.bench.summary import (
    MOST_DEVIATION,
    Comparison,
    bounds_over_plain,
    forks,
    over_plain,
    steadiness,
    summary,
)
from mtp_cli.engine import Depth
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.tuning import TUNING
from mtp_cli.errors import MtpError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_json(plan: Plan, result: Result, cost: CostModel) -> dict[str, Any]:
    """What was measured: a record for each class, temperature, depth and repetition (`Record`).

    constants: what the policy, its costs and the drafters were tuned by
    """
    prefill_s = sum(p.seconds for p in result.prefills)
    return {
        "plan": vars(plan),
        "constants": dataclasses.asdict(TUNING),
        "costs": vars(cost.table),
        "prefill_tokens_per_s": sum(p.tokens for p in result.prefills) / prefill_s,
        "plain_beside_plain": _steadiness_json(result),
        "peak_memory_bytes": result.peak_memory_bytes,
        "forks": {
            depth: {"forks": n_forks, "answers": n_answers}
            for depth, (n_forks, n_answers) in forks(result.records).items()
        },
        "summary": summary(result, cost),
        "over_plain": over_plain(result.records),
        "records": [record.to_json() for record in result.records],
        "prefills": [prefill.to_json() for prefill in result.prefills],
    }


def _steadiness_json(result: Result) -> dict[str, Any]:
    found = steadiness(result.records)
    return {
        "pairs": found.n_pairs,
        "deviation": found.deviation,
        "most": MOST_DEVIATION,
        "too_busy": found.is_too_busy,
    }


def table(result: Result, cost: CostModel, temperature: float) -> Table:
    """Speeds over plain decoding, a row for each class; when greedy, forks below them."""
    found = Comparison(result.records, temperature)
    bounds = bounds_over_plain(result, cost) if temperature == 0 else {}
    name = "greedy" if temperature == 0 else f"temperature {temperature:g}"
    shown = Table(title=f"times plain decoding, {name}", title_justify="left")
    shown.add_column("class")
    shown.add_column("plain tok/s", justify="right")
    depths = sorted(found.depths, key=lambda depth: (depth == "auto", depth))
    for depth in depths:
        shown.add_column(_heading(depth), justify="right")
    if bounds and "auto" in depths:
        shown.add_column("of bound", justify="right")
    for cls in found.classes:
        best, _ = found.best_static(cls)
        plain = found.plain(cls)
        spread = f" [dim]{plain.low:.0f}-{plain.high:.0f}[/dim]"
        cells = [cls, f"{plain.median:.1f}{spread}"]
        for depth in depths:
            ratio = found.over_plain(cls, depth)
            text = f"{ratio.median:.2f}"
            if depth in ("auto", 0):
                text += f" [dim]{ratio.low:.2f}-{ratio.high:.2f}[/dim]"
            cells.append(f"[bold]{text}[/bold]" if depth in (best, "auto") else text)
        if bounds and "auto" in depths:
            cells.append(f"{found.of_bound(cls, bounds):.2f}")
        shown.add_row(*cells)
    if temperature == 0:
        shown.add_section()
        counts = forks(result.records)
        cells = ["{} of {}".format(*counts[str(depth)]) for depth in depths]
        shown.add_row("forks", "", *cells)
    return shown


def show(
    console: Console, plan: Plan, result: Result, cost: CostModel,
    ours_share: float | None = None,
) -> None:  # fmt: skip
    """ours_share: of the weights' bytes, those that our kernels take; not said where None"""
    for temperature in plan.temperatures:
        console.print(table(result, cost, temperature))
    if 0.0 in plan.temperatures:
        console.print("forks: greedy answers that differ from plain decoding's")
    if plan.exact:
        proven = _listed(result.exact_row_counts)
        console.print(f"row counts that were seen to change no bit, and verified: {proven}")
    found = summary(result, cost)
    for name in ("auto_over_plain", "auto_over_best_static", "auto_over_bound"):
        ratios = found.get(name)
        if ratios:
            label = name.replace("_", " ")
            worst = f"worst class {ratios['worst']:.3f}"
            console.print(f"{label}: geometric mean {ratios['geomean']:.3f}, {worst}")
    prefill_s = sum(p.seconds for p in result.prefills)
    n_prefilled = sum(p.tokens for p in result.prefills)
    mebibytes = result.peak_memory_bytes / 2**20
    console.print(f"prompts {n_prefilled / prefill_s:.0f} tok/s, peak memory {mebibytes:.0f} MiB")
    console.print(f"CPU kernels for few rows: {_kernels(ours_share)}")
    console.print(_steadiness_line(result))


def _kernels(ours_share: float | None) -> str:
    vectors = our_kernels.install()
    if vectors is None:
        return "llama.cpp's"
    share = "" if ours_share is None else f", for {ours_share:.0%} of the weights' bytes"
    return f"ours, with {vectors}{share}"


def _steadiness_line(result: Result) -> str:
    found = steadiness(result.records)
    if found.deviation is None:
        return "plain beside plain: too few pairs to tell how busy this machine is"
    line = f"plain beside plain: deviation {found.deviation:.3f}, steady up to {MOST_DEVIATION}"
    if not found.is_too_busy:
        return line
    return (
        f"[bold]{line}: this machine is too busy to conclude anything from the ratios above; "
        "end what else runs, and measure again[/bold]"
    )


def _heading(depth: Depth | str) -> str:
    return {0: "plain again", "auto": "auto"}.get(depth, f"depth {depth}")


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def plot(result: Result, cost: CostModel) -> Figure:
    """Bars for each class, greedy: the best fixed depth, automatic, and the bound."""
    from matplotlib.figure import Figure

    found = Comparison(result.records)
    bounds = bounds_over_plain(result, cost)
    series = {
        "best fixed depth of the class": [found.best_static(cls)[1] for cls in found.classes],
        "automatic": [found.over_plain(cls, "auto").median for cls in found.classes],
        "clairvoyant bound": [
            found.over_plain(cls, "auto").median / found.of_bound(cls, bounds)
            for cls in found.classes
        ],
    }
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (label, values) in enumerate(series.items()):
        places = [place + 0.27 * (index - 1) for place in range(len(values))]
        axes.bar(places, values, 0.25, label=label)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(found.classes)), found.classes, rotation=30, ha="right")
    axes.set_ylabel("times plain decoding")
    axes.legend()
    return figure


def check_plots() -> None:
    """MtpError where there is nothing to draw with."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MtpError(
            "--plot needs matplotlib; in a clone of mtp-cli: "
            ".venv/bin/pip install -c constraints.txt -e '.[bench]'"
        ) from None


def write_plot(path: Path, result: Result, cost: CostModel) -> None:
    try:
        plot(result, cost).savefig(path, dpi=150, format="png")
    except OSError as error:
        raise MtpError(f"{path}: cannot be written: {error.strerror}") from None
