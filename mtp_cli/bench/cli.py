"""`mtp-bench`: its options, and the one place where its expected errors end.

Heavy imports wait until they are needed: `--help` and wrong usage answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.errors import MtpError
from mtp_cli.load_options import ChosenWays, with_ways
from mtp_cli.model_options import (
    CacheTypeK,
    CacheTypeV,
    DraftModel,
    GpuLayers,
    Heads,
    HfRepo,
    Model,
    Threads,
    one_model,
)
from mtp_cli.options import HELP, MAX_INT32, Version
from mtp_cli.screen import fold, is_terminal, printing, say, say_error
from mtp_cli.settings.command import Configured
from mtp_cli.settings.options import Setting
from mtp_cli.waiting import Wait, loading
from mtp_cli.whole_file import check_place

if TYPE_CHECKING:
    from mtp_cli.bench.measure import Plan, Result
    from mtp_cli.engine import Depth, Engine
    from mtp_cli.models import ModelFiles

_MAX_DEPTH = 8
_ALL_CLASSES = ",".join(PROMPTS)
_QUICK_S = (
    30.0  # of answers as fast as plain ones; fixed depths are slower, and loading comes on top
)

app = typer.Typer(context_settings=HELP, pretty_exceptions_enable=False, rich_markup_mode=None)


def _classes(text: str) -> str:
    unknown = set(text.split(",")) - set(PROMPTS)
    if unknown:
        raise typer.BadParameter(f"no class {min(unknown)!r}; there are {', '.join(PROMPTS)}.")
    return text


def _temperatures(text: str) -> str:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected numbers with commas between.") from None
    if not all(0 <= number < 100 for number in numbers):
        raise typer.BadParameter(f"{text!r}: temperatures are 0 or more.")
    return text


def _depths(text: str) -> str:
    for part in text.split(","):
        if part != "auto" and not (part.isdecimal() and int(part) <= _MAX_DEPTH):
            raise typer.BadParameter(f"{part!r} is neither 'auto' nor from 0 to {_MAX_DEPTH}.")
    return text


_EPILOG = """\b
Examples:
  mtp-bench --quick                     the built-in model, in a minute
  mtp-bench -m big.gguf --json big.json --plot big.png
  mtp-bench --classes python,editing --temperatures 0 --depths 0,1,3,auto
  mtp-bench --depths 0 --temperatures 0 plain beside plain: how exact a ratio is here

\b
Every ratio is to plain decoding of the same prompt, done beside it, round by round. The table goes
to stdout, everything else to stderr. Exit status: 0 done, 1 an error, 2 wrong usage, 130 stopped
by Ctrl-C."""


_Quick = Annotated[
    bool, typer.Option("--quick", help="A minute: greedy, few depths, short answers.")
]
_Repetitions = Annotated[
    int, typer.Option(metavar="N", min=1, help="Runs of each, over three prompts a class.")
]
_MaxTokens = Annotated[
    int, typer.Option("--max-tokens", "-n", metavar="N", min=2, help="Tokens in an answer.")
]
_Classes = Annotated[
    str,
    typer.Option(
        metavar="A,B",
        callback=_classes,
        show_default=False,
        help=f"Of {', '.join(PROMPTS)}. [default: all]",
    ),
]
_Temperatures = Annotated[
    str, typer.Option(metavar="X,Y", callback=_temperatures, help="0 is greedy.")
]
_Depths = Annotated[str, typer.Option(metavar="A,B", callback=_depths, help="Of 0 to 8 and auto.")]
_Exact = Annotated[bool, typer.Option("--exact", help="Verify only row counts that change no bit.")]
_Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all records as JSON.")
]
_Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write a plot as PNG.")]
_Ctx = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=MAX_INT32, help="Tokens of context.")
]


class _Bench(Configured):
    """Says which settings it follows: what is measured depends on them."""

    own = ("json", "max-tokens")  # a file, and the length of what is measured

    def note(self, found: list[Setting]) -> None:
        if found:
            names = ", ".join(setting.key for setting in found)
            say(fold(f"settings: {names} (mtp-chat config shows them)", sys.stderr), sys.stderr)


@app.command(cls=_Bench, epilog=_EPILOG)
@with_ways
def bench(
    ways: ChosenWays,
    model: Model = None,
    hf_repo: HfRepo = None,
    heads: Heads = None,
    draft_model: DraftModel = None,
    quick: _Quick = False,
    repetitions: _Repetitions = 5,
    max_tokens: _MaxTokens = 128,
    classes: _Classes = _ALL_CLASSES,
    temperatures: _Temperatures = "0,0.7,1",
    depths: _Depths = "0,1,2,3,4,5,6,7,8,auto",
    exact: _Exact = False,
    json_file: _Json = None,
    plot_file: _Plot = None,
    ctx: _Ctx = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
    version: Version = False,
) -> None:
    """Measure what drafting is worth on this machine: plain, every fixed depth, automatic."""
    from mtp_cli import models

    # What is wrong with a path shows before the rest is imported.
    files = models.find(one_model(model, hf_repo), heads, draft_model)

    from mtp_cli.bench.measure import Plan, shortened, warm_up
    from mtp_cli.engine import CacheTypes, Engine

    files = models.with_heads_beside(files)
    plan = Plan(
        tuple(dict.fromkeys(classes.split(","))),
        tuple(dict.fromkeys(float(part) for part in temperatures.split(","))),
        tuple(dict.fromkeys([0, *map(_depth, depths.split(","))])),
        repetitions,
        max_tokens,
        exact,
    )
    if quick:
        plan = Plan(plan.classes, (0.0,), (0, 1, 3, "auto"), 1, 48, exact)
    if plot_file is not None and not (0.0 in plan.temperatures and "auto" in plan.depths):
        raise typer.BadParameter("--plot shows greedy answers: it needs temperature 0 and auto.")
    _check_places(json_file, plot_file)
    with loading(files.name, sys.stderr, quiet=False) as progress:
        opened = Engine.open(
            files.model,
            files.heads,
            draft_model=files.draft_model,
            n_ctx=ctx,
            n_threads=threads,
            n_gpu_layers=gpu_layers,
            cache=CacheTypes(cache_type_k, cache_type_v),
            ways=ways(),
            on_progress=progress,
        )
    with opened as engine:
        with Wait(lambda: "warming up", sys.stderr, quiet=False):
            speed = warm_up(engine)
        plan = shortened(plan, speed, _QUICK_S) if quick else plan
        result = _run(engine, files, plan, plot_file)
        if json_file is not None:
            _write(json_file, engine, files, plan, result, threads, quick)


def _depth(text: str) -> Depth:
    return "auto" if text == "auto" else int(text)


def _check_places(json_file: Path | None, plot_file: Path | None) -> None:
    """Before an hour of measuring, not after."""
    from mtp_cli.bench.report import check_plots

    for path in (json_file, plot_file):
        if path is not None:
            check_place(path)
    if plot_file is not None:
        check_plots()


def _run(engine: Engine, files: ModelFiles, plan: Plan, plot_file: Path | None) -> Result:
    from rich.console import Console

    from mtp_cli.bench import report
    from mtp_cli.bench.measure import Bench
    from mtp_cli.bench.weights import Weights
    from mtp_cli.engine.backend import our_kernels

    if engine.drafter is None:
        say(fold(f"{files.name} has no MTP heads: only copying can draft", sys.stderr), sys.stderr)
    with Wait(lambda: "measuring what rounds cost", sys.stderr, quiet=False):
        engine.costs()
    reads_prompts = files.draft_model is not None
    bench = Bench(engine, plan, system=files.defaults.system, forgets=reads_prompts)
    result = _with_progress(len(plan), bench.run)
    ours_share = Weights.of(files.model).share(our_kernels.formats())
    report.show(Console(), plan, result, engine.costs(), ours_share)
    if plot_file is not None:
        report.write_plot(plot_file, result, engine.costs())
    return result


def _write(
    path: Path, engine: Engine, files: ModelFiles, plan: Plan, result: Result,
    threads: int | None, quick: bool,
) -> None:  # fmt: skip
    from mtp_cli.bench import recording, report
    from mtp_cli.engine.backend.cores import physical_cores

    n_threads = threads or physical_cores()
    holds_for = recording.provenance("mtp-bench", "mtp-bench", n_threads, files, quick=quick)
    recording.write(path, {**holds_for, **report.as_json(plan, result, engine.costs())})


def _with_progress(n_answers: int, run: Callable[[Callable[[str], None]], Result]) -> Result:
    if not is_terminal(sys.stderr):
        return _with_lines(n_answers, run)

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:12s}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=n_answers)

        def on_answer(cls: str) -> None:
            bar.update(task, description=cls, advance=1)

        return run(on_answer)


def _with_lines(n_answers: int, run: Callable[[Callable[[str], None]], Result]) -> Result:
    """The same in a log."""
    n_begun = 0

    def on_answer(_cls: str) -> None:
        nonlocal n_begun
        n_begun += 1

    with Wait(lambda: f"measuring: {n_begun} of {n_answers}", sys.stderr, quiet=False):
        return run(on_answer)


def main() -> None:
    try:
        with printing():
            app(prog_name="mtp-bench")
    except MtpError as error:
        say_error(error, sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
