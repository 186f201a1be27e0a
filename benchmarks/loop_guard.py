"""How often real text would be taken for a loop: what `repetition.STUCK` was chosen by.

Reads the files of some folders, in stretches of an answer's length, with the built-in model's
tokenizer, and counts those in which a stretch comes again and again, by how often and how long.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mtp_cli.conversation.repetition import STUCK
from mtp_cli.engine.backend.model import Model
from mtp_cli.models import built_in_model
from mtp_cli.options import MAX_TOKENS

MIN_TIMES = (3, 4, 6)
MIN_TOKENS = (40, 128, 256, 400)
MAX_BYTES = 60_000  # of one file, so that no large one decides


def stretches(
    model: Model, folders: list[Path], suffix: str, seconds: float
) -> Iterator[list[int]]:
    files = [file for folder in folders for file in folder.rglob(f"*{suffix}") if file.is_file()]
    random.Random(1).shuffle(files)
    end = time.monotonic() + seconds
    for file in files:
        if time.monotonic() > end:
            return
        text = file.read_bytes()[:MAX_BYTES].decode(errors="ignore")
        ids = model.tokenize(text, add_special=False, parse_special=False)
        yield from (ids[at : at + MAX_TOKENS] for at in range(0, len(ids), MAX_TOKENS))


def longest_runs(ids: list[int]) -> list[tuple[int, int]]:
    """(period, ids that repeat with it without a change, the first time included)."""
    row, runs = np.array(ids), []
    for period in range(1, min(STUCK.max_period, len(ids) - 1) + 1):
        changes = np.flatnonzero(row[period:] != row[:-period])
        edges = np.concatenate(([-1], changes, [len(ids) - period]))
        runs.append((period, int(np.diff(edges).max()) - 1 + period))
    return runs


def main(
    folders: Annotated[list[Path], typer.Argument(help="Where the texts lie.")],
    suffix: Annotated[str, typer.Option(help="Of the files to read.")] = ".py",
    seconds: Annotated[float, typer.Option(help="How long to read.")] = 300,
) -> None:
    model = Model(built_in_model(), no_alloc=True)
    counts, n = dict.fromkeys(((t, k) for t in MIN_TIMES for k in MIN_TOKENS), 0), 0
    for ids in stretches(model, folders, suffix, seconds):
        n += 1
        runs = longest_runs(ids)
        for times, tokens in counts:
            counts[times, tokens] += any(
                size >= period * max(times, -(-tokens // period)) for period, size in runs
            )
    for (times, tokens), count in counts.items():
        print(f"{times} times and {tokens} tokens: {count} of {n}")


if __name__ == "__main__":
    typer.run(main)
