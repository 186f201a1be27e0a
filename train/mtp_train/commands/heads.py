"""`mtp-train export` and `measure`: the head as a file, and what it accepts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtp_cli.bench.held_out import DEPTH, MAX_TOKENS, PROMPTS
from mtp_train.commands import options as given
from mtp_train.commands.common import target_path

# Imported when it is needed, so that help comes without numpy.
if TYPE_CHECKING:
    from mtp_cli.acceptance import Acceptance


def export(
    folder: given.Folder = given.DEFAULT_FOLDER,
    model: given.Model = None,
    output: given.Output = given.DEFAULT_OUTPUT,
    average: given.Average = None,
    record: given.Recorded = True,
    threads: given.Threads = None,
) -> None:
    """Write the checkpoint as a head-only GGUF, with a record of what it accepts."""
    from mtp_train.preflight import check_output
    from mtp_train.recipe import export as write
    from mtp_train.target import Target

    path = target_path(model)
    check_output(output, path, folder)
    n_bytes = write(Target(path), folder, output, average=average)
    if record:
        measured(path, output, threads=threads, record=True)
    print(f"{output}: {n_bytes:,} bytes", file=sys.stderr)


def measure(
    heads: given.Heads = given.DEFAULT_OUTPUT,
    model: given.Model = None,
    depth: given.Depth = DEPTH,
    max_tokens: given.Length = MAX_TOKENS,
    second: given.Second = False,
    record: given.Record = False,
    threads: given.Threads = None,
) -> None:
    """Acceptance at each draft position in the engine's own loop, on held-out chat prompts."""
    from mtp_train import second_set
    from mtp_train.measure import by_group

    if second and record:
        raise typer.BadParameter("--record is of the first set of prompts; leave --second out")
    found = measured(
        target_path(model),
        heads,
        depth=depth,
        max_tokens=max_tokens,
        prompts=second_set.PROMPTS if second else PROMPTS,
        threads=threads,
        record=record,
    )
    for group, counts in by_group(found).items():
        print(f"{group:18} {counts}")


def measured(
    model: Path,
    heads: Path,
    *,
    threads: int | None,
    record: bool,
    depth: int = DEPTH,
    max_tokens: int = MAX_TOKENS,
    prompts: Mapping[str, Sequence[str]] = PROMPTS,
) -> dict[str, list[Acceptance]]:
    """Answers by group of prompts, told one by one.

    heads:  a head file, or a whole model with heads of its own
    record: into that file too
    """
    from mtp_cli import models
    from mtp_train.measure import measure as answers_of
    from mtp_train.measure import record_of
    from mtp_train.record import check_record, write_record

    target, head_file = paired(model, heads)
    if record:
        check_record(heads)
    system = models.defaults(target).system
    found = answers_of(
        target,
        head_file,
        system=system,
        depth=depth,
        max_tokens=max_tokens,
        n_threads=threads,
        prompts=prompts,
        on_answer=lambda group, one: print(f"{group}: {one}", file=sys.stderr),
    )
    if record:
        write_record(heads, record_of(target, found, system=system, max_tokens=max_tokens))
    return found


def paired(model: Path, heads: Path) -> tuple[Path, Path | None]:
    """What to open: the target and its head file, or the whole model that has the heads in it."""
    from mtp_train.preflight import is_head_file

    return (model, heads) if is_head_file(heads) else (heads, None)
