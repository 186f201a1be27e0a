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

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.document.results import FOLDER, Content, read_result
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.engine.backend.quantize import quantize
from mtp_cli.errors import MtpError

HEADS = Path(__file__).parents[1] / "heads"  # that were made here for real files
_BENCH = ("-m", "mtp_cli.bench.cli")
_GREEDY = ("--temperatures", "0", "--depths", "0,1,2,3,auto", "--max-tokens", "48")
_COPYING = ("--temperatures", "0", "--depths", "0,auto", "--max-tokens", "96")
_HEADS = ("--temperatures", "0", "--depths", "0,1,2,3,auto", "--max-tokens", "96")
_SAMPLED = ("--temperatures", "0.7,1", "--depths", "0,1,auto", "--max-tokens", "48")


@dataclass(frozen=True)
class Effort:
    """What a full and a quick run differ in. minutes: about, on two cores of a server"""

    minutes: float
    arguments: str


@dataclass(frozen=True)
class Places:
    """Where what is not ours lies. models: a folder of real files; None where there is none"""

    models: Path | None = None
    server: Path | None = None
    peer_bench: Path | None = None

    def options(self, program: str) -> list[str]:
        """What a benchmark is told of them."""
        if program == "benchmarks.peer" and self.server is not None:
            return ["--server", str(self.server)]
        if program == "benchmarks.few_rows" and self.peer_bench is not None:
            return ["--peer-bench", str(self.peer_bench)]
        return []

    def file(self, name: str) -> Path | None:
        """A real file, None where it is not there."""
        path = None if self.models is None else self.models / name
        return path if path is not None and path.is_file() else None


NOWHERE = Places()


@dataclass(frozen=True)
class Step:
    """One benchmark of the set. name: of its file in the results.

    outtype: the format that the built-in model is requantized to for it, None for as it is
    file:    the real file that it is about, None for the built-in model
    draft:   the real file that drafts for it
    heads:   the file in `heads/` that drafts for it
    """

    name: str
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    full: Effort
    quick: Effort
    outtype: str | None = None
    file: str | None = None
    draft: str | None = None
    heads: str | None = None

    def command(
        self, quick: bool, model: Path | None, out: Path, places: Places = NOWHERE
    ) -> list[str]:
        effort = self.quick if quick else self.full
        files = [] if model is None else ["--model", str(model), *self._drafting(model)]
        options = places.options(self.program[1]) if self.file is not None else []
        return [
            *(sys.executable, *self.program, *self.arguments),
            *(*shlex.split(effort.arguments), *files, *options, "--json", str(out)),
        ]

    def _drafting(self, model: Path) -> list[str]:
        if self.file is None:
            return _heads()
        heads = [] if self.heads is None else ["--heads", str(HEADS / self.heads)]
        drafts = [] if self.draft is None else ["--draft-model", str(model.with_name(self.draft))]
        return [*heads, *drafts]


def _module(name: str) -> tuple[str, str]:
    return "-m", f"benchmarks.{name}"


def _heads() -> list[str]:
    heads = models.built_in_heads()
    return [] if heads is None else ["--heads", str(heads)]


def _bench(outtype: str, minutes: float, quick_minutes: float) -> Step:
    return Step(
        f"mtp-bench-{outtype}",
        _BENCH,
        _GREEDY,
        Effort(minutes, "--repetitions 5"),
        Effort(quick_minutes, "--repetitions 2"),
        None if outtype == "q4_1" else outtype,
    )


_QWEN = {size: f"qwen2.5-coder-{size}-instruct-q4_k_m.gguf" for size in ("0.5b", "1.5b")}


def _real(size: str, minutes: float, draft: str | None, peer: Effort) -> tuple[Step, ...]:
    """What is measured of a real file without heads; none may lie beside it.

    minutes: of mtp-bench's run
    peer:    beside llama-server: one repetition is at the mercy of a stall
    """
    file = _QWEN[size]
    return (
        Step(
            f"qwen-{size}",
            _BENCH,
            _COPYING,
            Effort(minutes, "--repetitions 3"),
            Effort(round(minutes / 3, 1), "--repetitions 1"),
            file=file,
        ),
        Step(
            f"few-rows-qwen-{size}",
            _module("few_rows"),
            (),
            Effort(1.4, "--seconds 75"),
            Effort(0.7, "--seconds 30"),
            file=file,
        ),
        Step(
            f"peer-qwen-{size}",
            _module("peer"),
            ("run", "--max-tokens", "64"),
            peer,
            Effort(2, "--quick"),
            file=file,
            draft=draft,
        ),
    )


def _with_heads(size: str, draft: str | None, peer: Effort) -> tuple[Step, ...]:
    """What is measured of a real file with the heads that were made for it; peer: as above"""
    file = _QWEN[size]
    heads = f"qwen2.5-coder-{size}-instruct-mtp.gguf"
    return (
        Step(
            f"heads-qwen-{size}",
            _BENCH,
            _HEADS,
            Effort(6, "--repetitions 3"),
            Effort(2, "--repetitions 1"),
            file=file,
            heads=heads,
        ),
        Step(
            f"peer-heads-qwen-{size}",
            _module("peer"),
            ("run", "--max-tokens", "64"),
            peer,
            Effort(2, "--quick"),
            file=file,
            draft=draft,
            heads=heads,
        ),
    )


STEPS = (
    _bench("q4_1", 3, 1.5),
    _bench("q4_0", 2.5, 1.2),
    _bench("q8_0", 3, 1.5),
    _bench("bf16", 5.5, 2.5),
    Step(
        "mtp-bench-sampled",
        _BENCH,
        _SAMPLED,
        Effort(3.5, "--repetitions 5"),
        Effort(1.5, "--repetitions 2"),
    ),
    Step(
        "few-rows",
        _module("few_rows"),
        (),
        Effort(3.5, "--seconds 15"),
        Effort(2, "--seconds 8"),
    ),
    Step("ttft", _module("ttft"), (), Effort(2, "--repetitions 5"), Effort(1, "--repetitions 2")),
    Step(
        "cached-prompt",
        _module("cached_prompt"),
        (),
        Effort(1, "--repetitions 5"),
        Effort(0.5, "--repetitions 3"),
    ),
    Step(
        "peer",
        _module("peer"),
        ("run",),
        Effort(6, "--minutes 4 --repetitions 5"),
        Effort(3, "--minutes 2 --repetitions 2"),
    ),
    Step(
        "scaled",
        _module("scaled"),
        (),
        Effort(8, "--minutes 6 --repetitions 3"),
        Effort(4, "--minutes 2.5 --repetitions 1"),
    ),
    Step(
        "lossless",
        _module("lossless"),
        ("--max-tokens", "48"),
        Effort(3, "--answers 10"),
        Effort(1, "--answers 3"),
    ),
    Step(
        "python-overhead",
        _module("python_overhead"),
        ("--temperatures", "0,0.7"),
        Effort(0.5, ""),
        Effort(0.5, ""),
    ),
    Step(
        "schemas",
        _module("schemas"),
        (),
        Effort(1.2, "--repetitions 5 --seconds 40"),
        Effort(0.5, "--repetitions 3 --seconds 8"),
    ),
    *_real("0.5b", 4, None, Effort(5, "--minutes 5 --repetitions 3")),
    *_real("1.5b", 6, _QWEN["0.5b"], Effort(9, "--minutes 10 --repetitions 3")),
    *_with_heads("0.5b", None, Effort(6, "--minutes 5 --repetitions 3")),
    Step(
        "draft-qwen-1.5b",
        _BENCH,
        _COPYING,
        Effort(5, "--repetitions 2"),
        Effort(2.5, "--repetitions 1"),
        file=_QWEN["1.5b"],
        draft=_QWEN["0.5b"],
    ),
    Step(
        "schemas-qwen-1.5b",
        _module("schemas"),
        (),
        Effort(2.5, "--repetitions 3"),
        Effort(1.1, "--repetitions 1 --seconds 0"),
        file=_QWEN["1.5b"],
    ),
)

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
