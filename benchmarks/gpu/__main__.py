"""`python -m benchmarks.gpu`: its commands, and the one place where expected errors end.

Imports what a command needs in that command: `run` must not load llama.cpp, which may crash.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import gpu
from mtp_cli.errors import MtpError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=gpu.__doc__)

_SECONDS, _DRY_SECONDS = 480.0, 120.0
_Model = Annotated[Path | None, typer.Option("--model", "-m", help="Default: the built-in one.")]
_Heads = Annotated[Path | None, typer.Option(help="Its head file.")]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Every stage on the CPU, tiny.")]


@app.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="To be made: all that a run needs.")],
    python: Annotated[
        str, typer.Option(help="Version of the Python there.")
    ] = f"{sys.version_info[0]}.{sys.version_info[1]}",
    architecture: Annotated[str, typer.Option(help="The card's; 90 is H100 and H200.")] = "90",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1)] = 1,
    work: Annotated[
        Path, typer.Option(help="For source and build, 2 GB; the same one again goes on.")
    ] = Path("runs/gpu-build"),
    sdist: Annotated[Path | None, typer.Option(help="llama-cpp-python's .tar.gz.")] = None,
    llama_wheel: Annotated[
        Path | None, typer.Option(help="llama-cpp-python, built already.")
    ] = None,
    part_mib: Annotated[
        int, typer.Option(min=0, help="Also pack it, in files of at most so many MiB.")
    ] = 0,
) -> None:
    """Compile llama-cpp-python for one card, and put all that a run needs into a folder."""
    from benchmarks.gpu import build
    from benchmarks.gpu import folder as folders

    parts = folder.with_name(f"{folder.name}.parts")
    for made in (folder, parts):
        if made.exists():
            raise MtpError(f"{made}: is there already; name another folder, or remove it")
    work.mkdir(parents=True, exist_ok=True)
    wheel = llama_wheel or build.wheel(work.absolute(), sdist, architecture, jobs)
    libraries = [] if llama_wheel is not None else build.runtime(work.absolute())
    folders.make(folder, work.absolute(), python, wheel, libraries)
    print(f"on the machine with the card, with Python {python}:")
    if part_mib:
        n_parts = folders.pack(folder, parts, part_mib << 20)
        print(f"  mkdir {folder.name} && cat part-* | tar -xJ -C {folder.name}  # {n_parts} parts")
    print(f"  cd {folder.name} && {folders.COMMAND}")


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="A folder for gpu.json and gpu.txt.")] = Path(
        "runs/gpu"
    ),
    seconds: Annotated[
        float | None, typer.Option(min=10, help="For all of it. [default: 480; dry 120]")
    ] = None,
    dry_run: _Dry = False,
    only: Annotated[str, typer.Option(help="Stages, with commas between.")] = "",
    model: _Model = None,
    heads: _Heads = None,
) -> None:
    """Measure on the card, a stage after another, and end in time."""
    from benchmarks.gpu import folder as folders
    from benchmarks.gpu import schedule
    from benchmarks.gpu.report import WIDTH, print_table

    shares = _chosen(schedule.SHARES, only)
    head = {"dry_run": dry_run, **folders.prepared()}
    out.mkdir(parents=True, exist_ok=True)
    found = schedule.Run(out / "gpu.json", seconds or (_DRY_SECONDS if dry_run else _SECONDS), head)
    given = [*_option("--model", model), *_option("--heads", heads), *["--dry-run"] * dry_run]

    def command(name: str, share_s: float, path: Path) -> list[str]:
        program = [sys.executable, "-m", "benchmarks.gpu", "stage", name]
        return [*program, "--seconds", f"{share_s:.1f}", "--out", str(path), *given]

    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, **folders.environment(Path(name))}
        if dry_run:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        try:
            schedule.run_all(found, shares, command, Path(name), environment, _say)
        finally:
            found.write()
    content = json.loads((out / "gpu.json").read_text())
    print_table(content)
    with (out / "gpu.txt").open("w") as file:
        print_table(content, Console(file=file, width=WIDTH))


@app.command()
def show(file: Path) -> None:
    """The table of a run again."""
    from benchmarks.gpu.report import print_table

    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise MtpError(f"{file}: no result that can be read: {error}") from None
    print_table(content)


@app.command(hidden=True)
def stage(
    name: str,
    seconds: Annotated[float, typer.Option()],
    out: Annotated[Path, typer.Option()],
    dry_run: _Dry = False,
    model: _Model = None,
    heads: _Heads = None,
) -> None:
    """One stage, as `run` calls it."""
    from benchmarks.gpu import stages
    from benchmarks.gpu.written import Pieces

    with tempfile.TemporaryDirectory() as folder:
        stages.run(name, (model, heads), dry_run, Pieces(out, seconds), Path(folder))


def _chosen(shares: dict[str, float], only: str) -> dict[str, float]:
    names = [name for name in only.split(",") if name] or list(shares)
    for name in names:
        if name not in shares:
            raise typer.BadParameter(f"no stage {name!r}; there are {', '.join(shares)}.")
    return {name: share for name, share in shares.items() if name in names or name == "machine"}


def _option(name: str, path: Path | None) -> list[str]:
    return [] if path is None else [name, str(path.absolute())]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    try:
        app(prog_name="python -m benchmarks.gpu")
    except MtpError as error:
        _say(f"error: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
