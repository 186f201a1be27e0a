"""Records what docs/measured.md shows: one benchmark after the other, each into benchmarks/results.

    python -m benchmarks.record                    # everything not recorded yet, 40 minutes
    python -m benchmarks.record --quick            # fewer repetitions, 20 minutes; marked as quick
    python -m benchmarks.record few-rows ttft      # only these
    python -m benchmarks.record --skip peer        # it needs llama-server, see benchmarks.peer
    python -m benchmarks.record --list             # names, commands and about how long each takes
    python -m benchmarks.record --models FOLDER qwen-1.5b peer-qwen-1.5b   # real files, see below

What is measured of real files needs a folder that has them, by --models or MTP_BENCH_MODELS, and is
left out without: Qwen2.5-Coder-Instruct with 0.5B and 1.5B parameters in Q4_K_M, by the names that
`--list` shows. --server names a llama-server that is not where benchmarks.peer builds it, and
--peer-bench a llama-bench to compare rows with.

A recorded result is not run again without --again, so that a run that was stopped goes on where it
was; a quick one gives way to a full one. Nothing else should run on the machine meanwhile. Then
`python -m benchmarks.document` writes the documents.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.document.results import FOLDER, Content, read_result
from benchmarks.steps import NOWHERE, STEPS, Places, Step
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.engine.backend.quantize import quantize
from mtp_cli.errors import MtpError

Execute = Callable[[Sequence[str]], None]


def execute(command: Sequence[str]) -> None:
    """Run a benchmark to its end; its status is not looked at: what it wrote tells."""
    subprocess.run(command, check=False)


def run(step: Step, results: Path, quick: bool, execute: Execute, places: Places) -> None:
    """One step into its file. Raises MtpError when the benchmark wrote nothing, or its file is not
    there."""
    with tempfile.TemporaryDirectory() as folder:
        out, model = Path(folder) / f"{step.name}.json", None
        if step.file is not None:
            model = places.file(step.file)
            if model is None:
                raise MtpError(f"{step.name}: needs --models, a folder with {step.file}")
        if step.outtype is not None:
            source = models.built_in_model()
            stem = source.name.split(".")[0]
            model = Path(folder) / f"{stem}.{step.outtype.upper()}.gguf"
            quantize(source, model, step.outtype)
        started = time.monotonic()
        execute(step.command(quick, model, out, places))
        seconds = time.monotonic() - started
        if not out.exists():
            raise MtpError(f"{step.name}: nothing was recorded; see what it said above")
        content = read_result(out)
    results.mkdir(exist_ok=True)
    recording.write(results / f"{step.name}.json", {**content, "quick": quick, "seconds": seconds})


def is_recorded(path: Path, quick: bool) -> bool:
    """Whether a result of today's form is there, and not a quick one where a full one is wanted."""
    if not path.exists():
        return False
    content: Content = read_result(path)
    return content.get("schema") == recording.SCHEMA and (quick or not content["quick"])


def record(
    steps: Iterable[Step], results: Path, *, quick: bool, again: bool, execute: Execute = execute,
    places: Places = NOWHERE,
) -> list[str]:  # fmt: skip
    """Run what is not recorded yet; the names of steps that gave nothing."""
    failed = []
    for step in steps:
        if not again and is_recorded(results / f"{step.name}.json", quick):
            _say(f"{step.name}: recorded already")
            continue
        _say(f"{step.name}: about {(step.quick if quick else step.full).minutes:g} minutes")
        try:
            run(step, results, quick, execute, places)
        except MtpError as error:
            _say(f"error: {error}")
            failed.append(step.name)
    return failed


def chosen(names: Sequence[str], skipped: Sequence[str], places: Places = NOWHERE) -> list[Step]:
    """Those that are named; of all, those whose file is there."""
    known = [step.name for step in STEPS]
    for name in (*names, *skipped):
        if name not in known:
            raise typer.BadParameter(f"no {name!r}; there are {', '.join(known)}.")
    there = [step.name for step in STEPS if step.file is None or places.file(step.file)]
    wanted = names or there
    return [step for step in STEPS if step.name in wanted and step.name not in skipped]


def show(steps: Sequence[Step], quick: bool) -> None:
    for step in steps:
        model = None if step.outtype is None else Path(f"{step.outtype.upper()}.gguf")
        model = model if step.file is None else Path(step.file)
        command = step.command(quick, model, Path(f"{step.name}.json"))
        minutes = (step.quick if quick else step.full).minutes
        print(f"{step.name:18} {minutes:4g} min  {recording.command_line('python', command[1:])}")
    total = sum((step.quick if quick else step.full).minutes for step in steps)
    print(f"{'together':18} {total:4g} min")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(
    names: Annotated[list[str] | None, typer.Argument(help="[default: all]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what is recorded already.")] = False,
    skip: Annotated[str, typer.Option(help="Names, with commas between.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="Only say what would run.")] = False,
    models: Annotated[
        Path | None, typer.Option(envvar="MTP_BENCH_MODELS", help="A folder of real files.")
    ] = None,
    server: Annotated[Path | None, typer.Option(help="A llama-server.")] = None,
    peer_bench: Annotated[Path | None, typer.Option(help="A llama-bench.")] = None,
) -> None:
    places = Places(models, server, peer_bench)
    skipped = [name for name in skip.split(",") if name]
    if list_:
        show(chosen(names or [step.name for step in STEPS], skipped), quick)
        return
    steps = chosen(names or [], skipped, places)
    try:
        failed = record(steps, FOLDER, quick=quick, again=again, places=places)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on with what is not recorded yet")
        sys.exit(130)
    if failed:
        _say(f"not recorded: {', '.join(failed)}")
        sys.exit(1)
    _say("next: python -m benchmarks.document")


if __name__ == "__main__":
    typer.run(main)
