"""The engine's constants: printed, or swept over recorded and made-up answers in simulated time.

    python -m benchmarks.tuning                                    # all, with unit and reason
    python -m benchmarks.tuning --json tuning.json
    python -m benchmarks.tuning --sweep policy.margin=0.03,0.06,0.12

A sweep runs the real loop, policy and cost model on answers that the built-in model gave
(`tests/engine/depth/traces`), under the cost tables of several machines; nothing is measured.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.options import JsonFile
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.tuning import TUNING, Tuning, entries, replaced
from tests.engine.depth import simulation
from tests.engine.depth.machines import TABLES, made_up

_TRACES = Path(simulation.__file__).parent / "traces" / "smollm2.json"


def speeds(tuning: Tuning) -> dict[str, list[float]]:
    """Machine -> the automatic depth's speed over plain decoding, for each answer."""
    traces = [recorded.trace for recorded in simulation.load_traces(_TRACES)]
    traces += [made_up(500, right=right) for right in (0.0, 0.3, 0.6, 0.9)]
    found = {}
    for name, table in TABLES.items():
        found[name] = [
            simulation.plain_s(trace, table)
            / simulation.replay(
                trace,
                simulation.Machine(table),
                ExpectedValue(CostModel(table, tuning.cost), tuning=tuning),
            ).stats.decode_s
            for trace in traces
        ]
    return found


def parsed(sweep: str) -> tuple[str, list[Any]]:
    """`policy.margin=0.03,0.06` as a name and its values, of the type that the constant has."""
    name, separator, text = sweep.partition("=")
    known = {entry.name: entry.value for entry in entries()}
    if not separator or name not in known:
        raise typer.BadParameter(f"expected NAME=VALUE,..., NAME one of: {', '.join(known)}")
    try:
        values = [ast.literal_eval(part) for part in text.split(",")]
    except (SyntaxError, ValueError):
        raise typer.BadParameter(f"{text}: expected numbers, with commas between them") from None
    wanted = type(known[name])
    if wanted not in (int, float) or any(not isinstance(v, (int, float)) for v in values):
        raise typer.BadParameter(f"{name} is no single number; change it in tuning.py")
    return name, [wanted(value) for value in values]


def swept(name: str, values: list[Any]) -> Table:
    """Geometric mean over all answers, and the worst, for each machine."""
    shown = Table(title=f"times plain decoding: geometric mean (worst), by {name}")
    shown.add_column("machine")
    columns = {value: speeds(replaced(TUNING, name, value)) for value in values}
    for value in values:
        shown.add_column(f"{value:g}", justify="right")
    for machine in TABLES:
        cells = [
            f"{statistics.geometric_mean(found[machine]):.3f} ({min(found[machine]):.3f})"
            for found in columns.values()
        ]
        shown.add_row(machine, *cells)
    return shown


def listed() -> Table:
    shown = Table(box=None, pad_edge=False)
    for heading in ("constant", "value", "unit", "why"):
        shown.add_column(heading)
    for entry in entries():
        shown.add_row(entry.name, str(entry.value), entry.unit, entry.why)
    return shown


def main(
    sweep: Annotated[str | None, typer.Option(help="NAME=VALUE,VALUE,...")] = None,
    json_path: JsonFile = None,
) -> None:
    """Print the engine's constants, or sweep one."""
    console = Console()
    if json_path is not None:
        json_path.write_text(json.dumps(dataclasses.asdict(TUNING), indent=1) + "\n")
    if sweep is not None:
        console.print(swept(*parsed(sweep)))
    elif json_path is None:
        console.print(listed())


if __name__ == "__main__":
    typer.run(main)
