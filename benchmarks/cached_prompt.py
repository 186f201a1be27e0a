"""Time to the first token of a prompt that was kept on disk, over reading it.

By turns an engine that was just opened reads the prompt, or finds it in the folder where another
one kept it; what is told is the median of the ratios within a turn, and how many logits of the
first token differ.

    python -m benchmarks.cached_prompt                    # the built-in model, 4,000 tokens
    python -m benchmarks.cached_prompt --model m.gguf --json cached-prompt.json
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.options import JsonFile
from benchmarks.ttft import text_of
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from mtp_cli.options import MAX_THREADS

_MAX_BYTES = 1 << 40


class First(NamedTuple):
    """The first token: seconds until it was there, its logits, ids that had not to be read."""

    seconds: float
    logits: Floats
    n_found: int


def first_token(
    files: models.ModelFiles, n_tokens: int, threads: int | None, folder: Path | None
) -> First:
    """By an engine of its own; folder: where it keeps prompts."""
    with Engine.open(files.model, files.heads, n_ctx=n_tokens + 64, n_threads=threads) as engine:
        engine.costs()  # measured once for a model and a machine
        if folder is not None:
            engine.keep_prompts(folder, max_bytes=_MAX_BYTES, on_problem=print)
        prompt = text_of(engine, n_tokens)
        rows: list[Floats] = []
        started = time.perf_counter()
        generation = engine.generate(
            prompt,
            Sampling(temperature=0),
            max_tokens=8,
            watch=lambda _token, logits: rows.append(logits.copy()),
        )
        next(generation)
        seconds = time.perf_counter() - started
        list(generation)
        return First(seconds, rows[0], generation.stats.cached_tokens)


def measure(
    files: models.ModelFiles, n_tokens: int, repetitions: int, threads: int | None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first_token(files, n_tokens, threads, folder)
        n_bytes = sum(path.stat().st_size for path in folder.iterdir())
        turns = []
        for _ in range(repetitions):
            read = first_token(files, n_tokens, threads, None)
            found = first_token(files, n_tokens, threads, folder)
            if found.n_found != n_tokens - 1:
                raise MtpError(f"only {found.n_found} of {n_tokens} tokens were found")
            turns.append((read, found))
    ratios = [read.seconds / found.seconds for read, found in turns]
    return {
        "tokens": n_tokens,
        "file_bytes": n_bytes,
        "read_s": statistics.median(read.seconds for read, _found in turns),
        "found_s": statistics.median(found.seconds for _read, found in turns),
        "read_over_found": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "logits_that_differ": sum(
            int(np.count_nonzero(read.logits != found.logits)) for read, found in turns
        ),
    }


def table(found: dict[str, Any]) -> Table:
    out = Table(title="seconds to the first token, medians", title_justify="left")
    for name in ("prompt", "read", "found on disk", "read / found", "spread", "logits that differ"):
        out.add_column(name, justify="right")
    out.add_row(
        f"{found['tokens']:,}",
        f"{found['read_s']:.3f}",
        f"{found['found_s']:.3f}",
        f"{found['read_over_found']:.1f}",
        f"{found['lowest']:.1f}-{found['highest']:.1f}",
        str(found["logits_that_differ"]),
    )
    return out


def main(
    model: Annotated[Path | None, typer.Option(help="Default: built in.")] = None,
    heads: Annotated[Path | None, typer.Option(help="Head-only GGUF.")] = None,
    tokens: Annotated[int, typer.Option(min=600, help="Of the prompt.")] = 4000,
    repetitions: Annotated[int, typer.Option(min=1)] = 5,
    threads: Annotated[int | None, typer.Option(min=1, max=MAX_THREADS)] = None,
    json_file: JsonFile = None,
) -> None:
    files = models.find(model, heads)
    found = measure(files, tokens, repetitions, threads)
    Console().print(table(found))
    if json_file is not None:
        program = "python -m benchmarks.cached_prompt"
        holds_for = recording.provenance(
            "cached-prompt", program, threads or physical_cores(), files
        )
        recording.write(json_file, {**holds_for, **found})


if __name__ == "__main__":
    typer.run(main)
