"""`mtp-train export` and `measure`: the head as a file, and what it accepts."""

from __future__ import annotations

import sys

from mtp_train.commands import options as given
from mtp_train.commands.common import acceptance_line, target_path


def export(
    folder: given.Folder = given.DEFAULT_FOLDER,
    model: given.Model = None,
    output: given.Output = given.DEFAULT_OUTPUT,
    average: given.Average = None,
) -> None:
    """Write the checkpoint as a head-only GGUF."""
    from mtp_train.recipe import export as write
    from mtp_train.target import Target

    n_bytes = write(Target(target_path(model)), folder, output, average=average)
    print(f"{output}: {n_bytes:,} bytes", file=sys.stderr)


def measure(
    heads: given.Heads = given.DEFAULT_OUTPUT,
    model: given.Model = None,
    depth: given.Depth = 3,
    max_tokens: given.Length = 200,
    second: given.Second = False,
    threads: given.Threads = None,
) -> None:
    """Acceptance at each draft position in the engine's own loop, on held-out chat prompts."""
    from mtp_cli import models
    from mtp_train import second_set
    from mtp_train.measure import PROMPTS
    from mtp_train.measure import measure as measure_heads

    target = target_path(model)
    found = measure_heads(
        target,
        heads,
        system=models.defaults(target).system,
        depth=depth,
        max_tokens=max_tokens,
        n_threads=threads,
        prompts=second_set.PROMPTS if second else PROMPTS,
        on_answer=lambda group, one: print(f"{group}: {acceptance_line(one)}", file=sys.stderr),
    )
    for group, counts in found.items():
        print(f"{group:18} {acceptance_line(counts)}")
