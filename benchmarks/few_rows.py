"""What decodes of few rows cost with our kernels and with llama.cpp's, and whether bits stay.

Both run in one process on the same context, in turns, so that a busy machine slows both. Prompts
are decoded too: how many tokens a second are read.

    python -m benchmarks.few_rows                         # the built-in model in many formats
    python -m benchmarks.few_rows --model m.gguf          # any other, as it is
    python -m benchmarks.few_rows --context 1000          # where attention takes most
    python -m benchmarks.few_rows --json rows.json

A row's logits, decoded among n, are compared with those that the same side gives the row alone. How
far ours lie from llama.cpp's own row is shown too, with attention left to llama.cpp: ours adds up
in single precision, so that its bits are its own.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.bandwidth import read_bytes_per_s
from mtp_cli.bench import recording
from mtp_cli.bench.weights import Weights
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.quantize import OUTTYPES, quantize
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.engine import physical_cores
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.models import ModelFiles, built_in_model

COUNTS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
PROMPTS = (64, 512)
FORMATS = tuple(name for name in our_kernels.formats() if name in OUTTYPES)
SIDES = {"llama": False, "ours": True}

Found = dict[str, Any]  # what a JSON file holds of one model; see `as_json`


def some_ids(n: int) -> list[int]:
    return [7 * i % 61 + 1 for i in range(n)]


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def apart(rows: Floats, others: Floats) -> float:
    """The greatest difference of a logit."""
    return float(np.abs(rows - others).max())


class Measurement:
    """Milliseconds and bits of one model's rows after n_before tokens, by side and row count.

    difference:        of a row among n to the row alone, by the same side's kernels
    from_llama:        of our products' rows to llama.cpp's row alone
    prompt_difference: of the row after a prompt of n, read at once or row by row, by our kernels
    """

    def __init__(self, path: Path, n_before: int, n_threads: int, repetitions: int) -> None:
        self.rows_ms: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.prompt_ms: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.difference: dict[tuple[str, int], float] = {}
        self.from_llama: dict[int, float] = {}
        self.prompt_difference: dict[int, float] = {}
        self._n_before = n_before
        model = Model(path)
        n_ctx = max(n_before, *PROMPTS) + 2 * COUNTS[-1]
        self._target = Target(model, n_ctx=n_ctx, n_threads=n_threads, hidden=HiddenSource.NONE)
        try:
            self._prompt_bits()
            self._row_bits()
            for _ in range(repetitions):
                self._rows()
            for _ in range(max(1, repetitions // 5)):
                self._prompts()
        finally:
            self._target.close()
            model.close()

    def _row_bits(self) -> None:
        """Before anything is timed; it leaves the context's tokens in memory."""
        alone = {}
        for side, is_ours in reversed(SIDES.items()):
            our_kernels.enable(products=is_ours, attention=is_ours)
            self._read(self._n_before)
            alone[side] = self._one_by_one()
            for n in COUNTS:
                self.difference[side, n] = apart(self._logits(n), alone[side][:n])
        our_kernels.enable(products=True, attention=False)  # after what llama.cpp has read
        for n in COUNTS:
            self.from_llama[n] = apart(self._logits(n), alone["llama"][:n])

    def _prompt_bits(self) -> None:
        our_kernels.enable()
        for n in PROMPTS:
            at_once = self._read(n)
            self._target.clear()
            one_by_one = [self._target.decode([id_]).logits[0] for id_ in some_ids(n)][-1]
            self.prompt_difference[n] = apart(at_once, one_by_one)

    def _read(self, n: int) -> Floats:
        """Read n tokens of a prompt into an empty context; logits after the last one."""
        self._target.clear()
        rows = self._target.prefill(some_ids(n), 0, lambda: False)
        assert rows is not None
        logits: Floats = rows.logits[-1].copy()
        return logits

    def _one_by_one(self) -> Floats:
        rows = [self._target.decode([id_]).logits[0].copy() for id_ in some_ids(COUNTS[-1])]
        self._target.truncate(self._n_before)
        return np.stack(rows)

    def _logits(self, n: int) -> Floats:
        logits = self._target.decode(some_ids(n)).logits.copy()
        self._target.truncate(self._n_before)
        return logits

    def _rows(self) -> None:
        for n in COUNTS:
            for side, is_ours in SIDES.items():
                our_kernels.enable(products=is_ours, attention=is_ours)
                self._logits(n)  # its graph is built in this one
                elapsed_s = timed(functools.partial(self._target.decode, some_ids(n)))
                self.rows_ms[side, n].append(elapsed_s * 1e3)
                self._target.truncate(self._n_before)

    def _prompts(self) -> None:
        for n in PROMPTS:
            for side, is_ours in SIDES.items():
                our_kernels.enable(products=is_ours, attention=is_ours)
                elapsed_s = timed(functools.partial(self._read, n + 1))
                self.prompt_ms[side, n].append(elapsed_s * 1e3)


def as_json(found: Measurement, weights: Weights, bytes_per_s: float) -> Found:
    """What was measured of one model.

    rows:            by how many: milliseconds of a decode, medians; differences of logits; share of
                     the machine's read bandwidth that reading all weights once takes in that time
    prompt_N:        likewise, of reading a prompt of N tokens
    ours_share:      of the weights' bytes, those that our kernels take
    bandwidth_share: of one row; null where experts are, of which a row reads some
    """
    rows = {str(n): _row(found, n, weights, bytes_per_s) for n in COUNTS}
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
    }


def _prompt(found: Measurement, n: int) -> Found:
    return {**_medians(found.prompt_ms, n), "difference": found.prompt_difference[n]}


def _medians(measured: dict[tuple[str, int], list[float]], n: int) -> dict[str, float]:
    return {f"{side}_ms": statistics.median(measured[side, n]) for side in ("ours", "llama")}


def table(name: str, found: Found) -> Table:
    out = Table(title=f"{name}: milliseconds of a decode; in brackets over one row of llama.cpp's")
    out.add_column("rows", justify="right")
    columns = ("llama.cpp", "ours", "gain", "of bandwidth", "differ: llama.cpp", "ours")
    for column in (*columns, "from llama.cpp"):
        out.add_column(column, justify="right")
    one = found["rows"]["1"]["llama_ms"]
    for n, row in found["rows"].items():
        times = (f"{row[side]:.1f} ({row[side] / one:.2f})" for side in ("llama_ms", "ours_ms"))
        bits = (f"{row[name]:.2g}" for name in ("llama_difference", "difference", "from_llama"))
        share = row["bandwidth_share"]
        share = "" if share is None else f"{share:.2f}"
        out.add_row(n, *times, f"{row['llama_ms'] / row['ours_ms']:.2f}", share, *bits)
    for n in PROMPTS:
        read = found[f"prompt_{n}"]
        ratio = f"{read['llama_ms'] / read['ours_ms']:.2f}"
        times = (f"{read[side]:.0f}" for side in ("llama_ms", "ours_ms"))
        out.add_row(f"prompt {n}", *times, ratio, "", "", f"{read['difference']:.2g}", "")
    out.caption = (
        f"our kernels take {found['ours_share']:.0%} of the weights' "
        f"{found['weight_bytes'] / 1e6:.0f} MB; memory is read at "
        f"{found['read_bytes_per_s'] / 1e9:.1f} GB/s"
    )
    return out


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


def measure(path: Path, context: int, threads: int, repetitions: int) -> Found:
    weights = Weights.of(path)
    found = Measurement(path, context, threads, repetitions)
    return as_json(found, weights, read_bytes_per_s(weights.n_bytes, threads))


def main(
    model: Annotated[Path | None, typer.Option(help="A GGUF. [default: built in]")] = None,
    formats: Annotated[
        str, typer.Option(help=f"Of the built-in model, from {', '.join(OUTTYPES)}.")
    ] = ",".join(FORMATS),
    threads: Annotated[int, typer.Option(min=1)] = physical_cores(),
    context: Annotated[int, typer.Option(min=1, help="Tokens before the rows.")] = 16,
    repetitions: Annotated[int, typer.Option(min=1)] = 25,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it here, too.")] = None,
) -> None:
    """With --model the JSON file has one model's keys; without, `formats` has them by format."""
    if our_kernels.install() is None:
        raise typer.BadParameter("this machine has no kernels of ours")
    found: dict[str, Found] = {}
    with files(model, formats) as paths:
        for name, path in paths.items():
            found[name] = measure(path, context, threads, repetitions)
            Console(width=110).print(table(name, found[name]))
    if json_file is not None:
        read = ModelFiles(model or built_in_model(), None)
        holds_for = recording.provenance("few_rows", "python -m benchmarks.few_rows", threads, read)
        body = {"formats": found} if model is None else found[model.name]
        recording.write(json_file, {**holds_for, "context": context, **body})


if __name__ == "__main__":
    typer.run(main)
