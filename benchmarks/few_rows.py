"""What decodes of few rows cost with our kernels and with llama.cpp's, and whether bits stay.

Both run in one process, in turns, so that a busy machine slows both: ours on weights that are laid
out for them, llama.cpp's on the same as llama.cpp has them. Prompts are decoded too: how many
tokens a second are read.

    python -m benchmarks.few_rows                         # the built-in model in many formats
    python -m benchmarks.few_rows --model m.gguf          # any other, as it is, in 75 seconds
    python -m benchmarks.few_rows --model m.gguf --peer-bench PATH   # somebody's llama-bench, too
    python -m benchmarks.few_rows --context 1000          # where attention takes most
    python -m benchmarks.few_rows --json rows.json

A row's logits, decoded among n, are compared with those that the same side gives the row alone. How
far ours lie from llama.cpp's own row is shown too, with attention left to llama.cpp: weights that
are laid out are added up in another order. A peer's numbers are its own clock's, of prompts
of n tokens with nothing before them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.bandwidth import read_bytes_per_s
from benchmarks.options import JsonFile
from benchmarks.row_costs import PROMPTS, Measurement, OnStep, sides
from mtp_cli.bench import recording
from mtp_cli.bench.weights import Weights
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.backend.quantize import OUTTYPES, quantize
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles, built_in_model

FORMATS = tuple(name for name in our_kernels.formats() if name in OUTTYPES)
SECONDS, SECONDS_EACH = 75.0, 15.0  # of one model; of each of many formats

Found = dict[str, Any]  # what a JSON file holds of one model; see `as_json`
Times = Mapping[tuple[str, int], list[float]]


def as_json(found: Measurement, weights: Weights, bytes_per_s: float) -> Found:
    """What was measured of one model.

    rows:            by how many: milliseconds of a decode, medians of `runs`; differences of
                     logits; share of the machine's read bandwidth that reading all weights once
                     takes in that time
    prompt_N:        likewise, of reading a prompt of N tokens; its difference is to reading it in
                     pieces of `pieces` rows
    ours_share:      of the weights' bytes, those that our kernels take
    bandwidth_share: of one row; null where experts are, of which a row reads some
    """
    rows = {str(n): _row(found, n, weights, bytes_per_s) for n in found.counts}
    return {
        "rows": rows,
        **{f"prompt_{n}": _prompt(found, n) for n in PROMPTS},
        "format": weights.format,
        "weight_bytes": weights.n_bytes,
        "ours_share": weights.share(our_kernels.formats()),
        "read_bytes_per_s": bytes_per_s,
        "bandwidth_share": rows["1"]["bandwidth_share"],
    }


def _row(found: Measurement, n: int, weights: Weights, bytes_per_s: float) -> Found:
    ms = _medians(found.rows_ms, n)
    ideal_ms = weights.n_bytes / bytes_per_s * 1e3
    return {
        **ms,
        "difference": found.difference["ours", n],
        "llama_difference": found.difference["llama", n],
        "from_llama": found.from_llama[n],
        "bandwidth_share": None if weights.experts else ideal_ms / ms["ours_ms"],
        "runs": len(found.rows_ms["ours", n]),
    }


def _prompt(found: Measurement, n: int) -> Found:
    return {
        **_medians(found.prompt_ms, n),
        "difference": found.prompt_difference[n],
        "pieces": found.prompt_pieces[n],
        "runs": len(found.prompt_ms["ours", n]),
    }


def _medians(measured: Times, n: int) -> dict[str, float]:
    return {f"{side}_ms": statistics.median(measured[side, n]) for side in sides(measured, n)}


def table(name: str, found: Found) -> Table:
    """A peer's columns are there where one was asked."""
    has_peer = "peer_ms" in found["rows"]["1"]
    out = Table(title=f"{name}: milliseconds of a decode; in brackets over one row")
    out.add_column("rows", justify="right")
    columns = ["llama.cpp", "ours", "gain", *["peer", "gain"] * has_peer]
    for column in (*columns, "of bandwidth", "differ: llama.cpp", "ours", "from llama.cpp"):
        out.add_column(column, justify="right")
    for n, row in found["rows"].items():
        times = _times(row, found["rows"]["1"], has_peer)
        bits = (f"{row[name]:.2g}" for name in ("llama_difference", "difference", "from_llama"))
        share = row["bandwidth_share"]
        out.add_row(n, *times, "" if share is None else f"{share:.2f}", *bits)
    for n in PROMPTS:
        read = found[f"prompt_{n}"]
        cells = (*_times(read, None, has_peer), "", "", f"{read['difference']:.2g}", "")
        out.add_row(f"prompt {n}", *cells)
    out.caption = (
        f"our kernels take {found['ours_share']:.0%} of the weights' "
        f"{found['weight_bytes'] / 1e6:.0f} MB; memory is read at "
        f"{found['read_bytes_per_s'] / 1e9:.1f} GB/s"
    )
    return out


def _times(row: Found, one: Found | None, has_peer: bool) -> list[str]:
    """llama.cpp's time, ours and how many times as fast that is, and the same of a peer."""

    def shown(side: str) -> str:
        key = f"{side}_ms"
        if key not in row:
            return ""
        return f"{row[key]:.0f}" if one is None else f"{row[key]:.1f} ({row[key] / one[key]:.2f})"

    def gain(side: str) -> str:
        return f"{row[f'{side}_ms'] / row['ours_ms']:.2f}" if f"{side}_ms" in row else ""

    cells = [shown("llama"), shown("ours"), gain("llama")]
    return [*cells, shown("peer"), gain("peer")] if has_peer else cells


@contextmanager
def files(model: Path | None, formats: str) -> Iterator[dict[str, Path]]:
    if model is not None:
        yield {model.name: model}
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.gguf" for name in formats.split(",")}
        for name, path in paths.items():
            quantize(built_in_model(), path, name)
        yield paths


@contextmanager
def progress(name: str, seconds: float) -> Iterator[OnStep]:
    """A bar of the time that has gone, on stderr."""
    columns = (TextColumn("{task.description:24s}"), BarColumn(), TimeElapsedColumn())
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=seconds)

        def on_step(step: str) -> None:
            gone_s = time.perf_counter() - started
            bar.update(task, description=f"{name}: {step}", completed=min(gone_s, seconds))

        yield on_step


def measure(
    path: Path, context: int, threads: int, seconds: float, peer: Path | None = None
) -> Found:
    weights = Weights.of(path)
    with progress(path.stem[:16], seconds) as on_step:
        on_step("loading")
        found = Measurement(path, context, threads, seconds, peer, on_step)
        on_step("bandwidth")
        bytes_per_s = read_bytes_per_s(weights.n_bytes, threads)
    return as_json(found, weights, bytes_per_s)


def main(
    model: Annotated[Path | None, typer.Option(help="A GGUF. [default: built in]")] = None,
    formats: Annotated[
        str, typer.Option(help=f"Of the built-in model, from {', '.join(OUTTYPES)}.")
    ] = ",".join(FORMATS),
    threads: Annotated[int, typer.Option(min=1)] = physical_cores(),
    context: Annotated[int, typer.Option(min=1, help="Tokens before the rows.")] = 16,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1, help=f"About, for each file. [default: {SECONDS:g}; {SECONDS_EACH:g} a format]"
        ),
    ] = None,
    peer_bench: Annotated[
        Path | None, typer.Option(help="A llama-bench to ask for prompts of n tokens.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """With --model the JSON file has one model's keys; without, `formats` has them by format."""
    if our_kernels.install() is None:
        raise typer.BadParameter("this machine has no kernels of ours")
    seconds = seconds or (SECONDS_EACH if model is None else SECONDS)
    found: dict[str, Found] = {}
    with files(model, formats) as paths:
        for name, path in paths.items():
            found[name] = measure(path, context, threads, seconds, peer_bench)
            Console(width=130 if peer_bench else 110).print(table(name, found[name]))
    if json_file is not None:
        read = ModelFiles(model or built_in_model(), None)
        holds_for = recording.provenance("few_rows", "python -m benchmarks.few_rows", threads, read)
        body = {"formats": found} if model is None else found[model.name]
        recording.write(json_file, {**holds_for, "context": context, **body})


if __name__ == "__main__":
    try:
        typer.run(main)
    except MtpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
