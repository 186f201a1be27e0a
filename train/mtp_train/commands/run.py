"""`mtp-train run`: every step, one after another, and the report."""

from __future__ import annotations

import sys
from pathlib import Path

from mtp_cli.bench.held_out import MAX_TOKENS
from mtp_train.commands import options as given
from mtp_train.commands.common import all_threads, n_written, target_path
from mtp_train.commands.fit import fit
from mtp_train.commands.generate import generate
from mtp_train.commands.heads import export, measured, paired
from mtp_train.pytorch import check_torch


def run(
    folder: given.Folder = given.DEFAULT_FOLDER,
    model: given.Model = None,
    output: given.RunOutput = None,
    hours: given.Hours = None,
    tokens: given.Tokens = 1_000_000,
    steps: given.Steps = 2000,
    bf16: given.Bf16 = False,
    device: given.Device = "auto",
    threads: given.Threads = None,
) -> None:
    """Everything: write the text, train, export, measure, report. Run again to continue."""
    from mtp_train.layer_rows import chosen_layers
    from mtp_train.preflight import check_output, check_room, check_writing, default_output
    from mtp_train.target import Target

    path = target_path(model)
    check_torch(device)
    output = output or default_output(path)
    check_output(output, path, folder)
    check_room(output, Target(path))
    written = n_written(folder / "corpus", path)
    check_writing(
        path,
        folder,
        n_tokens=0 if hours else max(0, tokens - written),
        bf16=bf16,
        trains=True,
        n_layers=len(chosen_layers(Target(path), None)),
    )
    from mtp_train.plan import Plan, plan_of

    plan = plan_of(
        path,
        folder,
        Plan(tokens, steps),
        hours,
        bf16=bf16,
        device=device,
        n_threads=threads or all_threads(),
        n_written=written,
        say=lambda line: print(line, file=sys.stderr),
    )
    generate(folder, model, plan.tokens, bf16=bf16, threads=threads)
    fit(folder, model, plan.steps, device=device, threads=threads)
    export(folder, model, output, record=False)
    _report(folder, path, output, threads)


def _report(folder: Path, path: Path, heads: Path, threads: int | None) -> None:
    """Measure the head, and say what it came to: on stdout, and in the folder's files."""
    from mtp_cli import models
    from mtp_train.measure import by_group, speeds
    from mtp_train.report import Report, group_of, read_curve, write_report
    from mtp_train.target import Target

    counts = by_group(measured(path, heads, threads=threads, record=True))
    system = models.defaults(path).system
    found = speeds(*paired(path, heads), max_tokens=MAX_TOKENS, system=system, n_threads=threads)
    groups = {name: group_of(counts[name], *found[name]) for name in found}
    made = Report(Target(path).name, n_written(folder / "corpus", path), groups, read_curve(folder))
    print(made.text(), end="")
    for written in write_report(folder, made):
        print(f"{written}: written", file=sys.stderr)
