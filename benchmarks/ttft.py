"""Time to the first token with drafting on, over off: prompts of 100, 1,000 and 4,000 tokens.

Two engines on the same file, one with the heads and one without, take turns on the same prompts,
each from an empty context; what is told is the median of the ratios within a turn. Heads in the
model's own file cannot be left out: name the same target without them as --plain.

    python -m benchmarks.ttft                         # the built-in model, a few minutes
    python -m benchmarks.ttft --model m.gguf --heads h.gguf --clock cpu   # on a busy machine
    python -m benchmarks.ttft --json ttft.json
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.options import JsonFile
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.engine import Depth, Engine, Sampling
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.options import MAX_THREADS

Turns = list[tuple[float, float]]  # seconds with drafting off, on

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def text_of(engine: Engine, n_tokens: int) -> list[int]:
    """The benchmark's own prompts one after another, as often as it takes."""
    text = "\n\n".join(text for texts in PROMPTS.values() for text in texts)
    ids = engine.tokenize(text, add_special=True, parse_special=False)
    return (ids * (1 + n_tokens // len(ids)))[:n_tokens]


def first_token_s(
    engine: Engine, prompt: list[int], depth: Depth, clock: Callable[[], float]
) -> float:
    # Another first token, so that nothing of the prompt is cached.
    list(engine.generate([prompt[1], prompt[0]], Sampling(0), max_tokens=1, depth=0))
    started = clock()
    next(engine.generate(prompt, Sampling(temperature=0), max_tokens=8, depth=depth))
    return clock() - started


def measure(
    files: models.ModelFiles,
    plain: Path,
    lengths: list[int],
    repetitions: int,
    clock: Callable[[], float],
    threads: int | None,
) -> dict[int, Turns]:
    """For each length: seconds (off, on) of each turn."""
    n_ctx = max(lengths) + 64
    found: dict[int, Turns] = {n: [] for n in lengths}
    with (
        Engine.open(plain, n_ctx=n_ctx, n_threads=threads) as off,
        Engine.open(files.model, files.heads, n_ctx=n_ctx, n_threads=threads) as on,
    ):
        on.costs()  # measured once for a model and a machine
        sides: dict[str, tuple[Engine, Depth]] = {"off": (off, 0), "on": (on, "auto")}
        for turn in range(repetitions):
            for n in lengths:
                prompt = text_of(off, n)
                order = ("off", "on") if turn % 2 else ("on", "off")
                seconds = {
                    side: first_token_s(sides[side][0], prompt, sides[side][1], clock)
                    for side in order
                }
                found[n].append((seconds["off"], seconds["on"]))
    return found


def summary(turns: Turns) -> dict[str, float]:
    """Medians of seconds, and of the ratios within a turn."""
    ratios = [on / off for off, on in turns]
    off_s, on_s = (statistics.median(side) for side in zip(*turns, strict=True))
    found = {"off_s": off_s, "on_s": on_s, "on_over_off": statistics.median(ratios)}
    return {**found, "lowest": min(ratios), "highest": max(ratios)}


def table(found: dict[str, dict[str, float]]) -> Table:
    out = Table(title="seconds to the first token, medians", title_justify="left")
    for name in ("prompt", "drafting off", "on", "on / off", "spread"):
        out.add_column(name, justify="right")
    for n, one in found.items():
        cells = (f"{one[name]:.3f}" for name in ("off_s", "on_s", "on_over_off"))
        out.add_row(f"{int(n):,}", *cells, f"{one['lowest']:.3f}-{one['highest']:.3f}")
    return out


def as_json(
    files: models.ModelFiles, found: dict[str, dict[str, float]], clock: str, n_threads: int
) -> dict[str, Any]:
    """prompts: by length in tokens; see `summary`."""
    program = "python -m benchmarks.ttft"
    holds_for = recording.provenance("ttft", program, n_threads, files)
    return {**holds_for, "clock": clock, "prompts": found}


def main(
    model: Annotated[Path | None, typer.Option(help="Default: built in.")] = None,
    heads: Annotated[Path | None, typer.Option(help="Head-only GGUF.")] = None,
    plain: Annotated[Path | None, typer.Option(help="The target alone. Default: --model.")] = None,
    lengths: Annotated[str, typer.Option(help="Tokens, with commas between.")] = "100,1000,4000",
    repetitions: Annotated[int, typer.Option(min=1)] = 7,
    clock: Annotated[str, typer.Option(help="wall, or cpu for a busy machine.")] = "wall",
    threads: Annotated[int | None, typer.Option(min=1, max=MAX_THREADS)] = None,
    json_file: JsonFile = None,
) -> None:
    if clock not in CLOCKS:
        raise typer.BadParameter(f"--clock {clock}: expected one of {', '.join(CLOCKS)}")
    files = models.find(model, heads)
    wanted = [int(part) for part in lengths.split(",")]
    found = measure(files, plain or files.model, wanted, repetitions, CLOCKS[clock], threads)
    shown = {str(n): summary(turns) for n, turns in found.items()}
    Console().print(table(shown))
    if json_file is not None:
        content = as_json(files, shown, clock, threads or physical_cores())
        recording.write(json_file, content)


if __name__ == "__main__":
    typer.run(main)
