"""What decodes of few rows cost with our kernels and with ggml's, and whether rows keep their bits.

Both run in one process on the same context, in turns, so that a busy machine slows both. Prompts
are decoded too: how many tokens a second are read.

    python -m benchmarks.few_rows                         # the built-in model in five formats
    python -m benchmarks.few_rows --model m.gguf          # any other, as it is
    python -m benchmarks.few_rows --context 1000          # where attention takes most

What differs from one row of ggml is shown too. Attention is left to ggml for that: ours adds up in
single precision, so that its bits are its own.
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
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.quantize import OUTTYPES, quantize
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.engine import physical_cores
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.models import built_in_model

COUNTS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
PROMPTS = (64, 512)
FORMATS = tuple(name for name in our_kernels.formats() if name in OUTTYPES)
SIDES = {"ggml": False, "ours": True}


def some_ids(n: int) -> list[int]:
    return [7 * i % 61 + 1 for i in range(n)]


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class Measurement:
    """Milliseconds and bits of one model's rows after n_before tokens, by side and row count."""

    def __init__(self, path: Path, n_before: int, n_threads: int, repetitions: int) -> None:
        self.rows_ms: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.prompt_ms: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.differ: dict[tuple[str, int], float] = {}
        self._n_before = n_before
        model = Model(path)
        n_ctx = max(n_before, *PROMPTS) + 2 * COUNTS[-1]
        self._target = Target(model, n_ctx=n_ctx, n_threads=n_threads, hidden=HiddenSource.NONE)
        try:
            self._single = self._one_by_one()
            for _ in range(repetitions):
                self._rows()
            for _ in range(max(1, repetitions // 5)):
                self._prompts()
        finally:
            self._target.close()
            model.close()

    def _one_by_one(self) -> Floats:
        our_kernels.enable(products=False, attention=False)
        self._target.prefill(some_ids(self._n_before), 0, lambda: False)
        single = [self._target.decode([id_]).logits[0].copy() for id_ in some_ids(COUNTS[-1])]
        self._target.truncate(self._n_before)
        return np.stack(single)

    def _rows(self) -> None:
        for n in COUNTS:
            for side, is_ours in SIDES.items():
                ids = some_ids(n)
                our_kernels.enable(products=is_ours, attention=False)
                logits = self._target.decode(ids).logits  # its graph is built in this one
                self.differ[side, n] = float(np.abs(logits - self._single[:n]).max())
                self._target.truncate(self._n_before)
                our_kernels.enable(products=is_ours, attention=is_ours)
                elapsed_s = timed(functools.partial(self._target.decode, ids))
                self.rows_ms[side, n].append(elapsed_s * 1e3)
                self._target.truncate(self._n_before)

    def _prompts(self) -> None:
        for n in PROMPTS:
            for side, is_ours in SIDES.items():
                our_kernels.enable(products=is_ours, attention=is_ours)
                self._target.clear()
                read = functools.partial(self._target.prefill, some_ids(n + 1), 0, lambda: False)
                self.prompt_ms[side, n].append(timed(read) * 1e3)


def table(name: str, found: Measurement) -> Table:
    out = Table(
        title=f"{name}: milliseconds of a decode, medians; in brackets over one row of ggml"
    )
    out.add_column("rows", justify="right")
    for column in (*SIDES, "ggml / ours", "differ: ggml", "ours"):
        out.add_column(column, justify="right")
    one = statistics.median(found.rows_ms["ggml", 1])
    for n in COUNTS:
        theirs, ours = (statistics.median(found.rows_ms[side, n]) for side in SIDES)
        cells = (f"{ms:.1f} ({ms / one:.2f})" for ms in (theirs, ours))
        bits = (f"{found.differ[side, n]:.2g}" for side in SIDES)
        out.add_row(str(n), *cells, f"{theirs / ours:.2f}", *bits)
    for n in PROMPTS:
        theirs, ours = (statistics.median(found.prompt_ms[side, n]) for side in SIDES)
        out.add_row(f"prompt {n}", f"{theirs:.0f}", f"{ours:.0f}", f"{theirs / ours:.2f}", "", "")
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


def main(
    model: Annotated[Path | None, typer.Option(help="A GGUF. [default: built in]")] = None,
    formats: Annotated[
        str, typer.Option(help=f"Of the built-in model, from {', '.join(OUTTYPES)}.")
    ] = ",".join(FORMATS),
    threads: Annotated[int, typer.Option(min=1)] = physical_cores(),
    context: Annotated[int, typer.Option(min=1, help="Tokens before the rows.")] = 16,
    repetitions: Annotated[int, typer.Option(min=1)] = 25,
) -> None:
    if our_kernels.install() is None:
        raise typer.BadParameter("this machine has no kernels of ours")
    with files(model, formats) as paths:
        for name, path in paths.items():
            found = Measurement(path, context, threads, repetitions)
            Console(width=100).print(table(name, found))


if __name__ == "__main__":
    typer.run(main)
