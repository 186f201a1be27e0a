"""`python -m benchmarks.peer`: its two commands, and the one place where expected errors end."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.options import JsonFile
from benchmarks.peer import build as building
from benchmarks.peer import report
from benchmarks.peer.compare import BESIDE, Contender, Record, compare, ours, peers
from benchmarks.peer.server import SETTINGS, Server, Setting, settings_without_heads
from benchmarks.peer.summary import summary
from benchmarks.scaled import SIZES, widened
from mtp_cli import models
from mtp_cli.bench import recording
from mtp_cli.bench.measure import Plan, shortened, warm_up
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.backend.quantize import OUTTYPES, quantize
from mtp_cli.engine.files import gguf_header
from mtp_cli.engine.files.pairing import pair
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from mtp_cli.options import MAX_THREADS
from mtp_convert.commands.pack import plan_pack
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.write import write

FOLDER = Path("runs/peer")
BINARY = building.binary(FOLDER)
QUICK_CLASSES = "python,editing,chat"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command("build")
def build_(
    folder: Annotated[Path, typer.Option("--dir", help="For source and build, 600 MB.")] = FOLDER,
    sdist: Annotated[
        Path | None, typer.Option(help="llama-cpp-python's .tar.gz, or it unpacked.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1)] = 2,
) -> None:
    """Compile llama-server from llama-cpp-python's sdist, with the wheel's flags."""
    folder.mkdir(parents=True, exist_ok=True)
    print(building.build(building.fetch(folder, sdist), folder, jobs))


def packed(files: ModelFiles, outtype: str | None, size: str | None, folder: Path) -> ModelFiles:
    """Target and head in one file of an architecture that llama.cpp can draft with, its head over
    the whole vocabulary; and beside it the head file that it was made of.

    size: of SIZES, to widen both before
    """
    if size is not None:
        with widened(files, SIZES[size], folder) as wide:
            return packed(wide, outtype, None, folder)
    if files.heads is None:
        raise MtpError(f"{files.name} has no heads of its own; name them with --heads")
    target = files.model
    if outtype is not None:
        target = folder / f"target-{outtype}.gguf"
        quantize(files.model, target, outtype)
    out = folder / "packed.gguf"
    write(plan_pack(target, files.heads), out)
    if target != files.model:
        target.unlink()
    return ModelFiles(out, Path(shutil.copy(files.heads, folder / "beside.gguf")))


def has_own_heads(files: ModelFiles) -> bool:
    return pair(gguf_header.read_shards(files.model), None) is not None


def fuses_layers(files: ModelFiles) -> bool:
    """Whether its heads read rows of several layers, which llama-server cannot draft with."""
    found = pair(gguf_header.read_shards(files.model), files.heads) if files.heads else None
    return found is not None and found.fused is not None


def contenders_of(
    stack: contextlib.ExitStack, files: ModelFiles, draft_model: Path | None, folder: Path,
    outtype: str | None, size: str | None, n_ctx: int, n_threads: int,
) -> tuple[Path, list[Contender], Sequence[Setting], Engine]:  # fmt: skip
    """What both tools run, our side of it ready, llama-server's settings, and our engine.

    A head file is packed into its target, since llama-server takes none beside; a file with heads
    of its own, or without any, is run as it is. Beside one with heads for ours alone llama-server
    has what it has for files without.
    """

    def opened(model: Path, heads: Path | None) -> Engine:
        engine = Engine.open(model, heads, n_ctx=n_ctx, n_threads=n_threads)
        stack.enter_context(engine).costs()
        return engine

    if files.heads is not None and not fuses_layers(files):
        made = packed(files, outtype, size, folder)
        engine = opened(made.model, None)
        found = [*ours(engine), *ours(opened(made.model, made.heads), BESIDE)]
        return made.model, found, SETTINGS, engine
    if outtype is not None or size is not None:
        raise MtpError(
            "--outtype and --scaled need a head file that can be packed; name it with --heads"
        )
    engine = opened(files.model, files.heads)
    if has_own_heads(files):
        return files.model, ours(engine), SETTINGS, engine
    settings = settings_without_heads(draft_model)
    return files.model, ours(engine, depths=()), settings, engine


def start(
    stack: contextlib.ExitStack, binary: Path, model: Path, settings: Sequence[Setting],
    n_ctx: int, n_threads: int, folder: Path,
) -> list[Contender]:  # fmt: skip
    """Every setting of llama-server, ready to answer; `stack` ends them. folder: for their logs"""
    servers = []
    for index, setting in enumerate(settings):
        log = folder / f"server-{index}.log"
        server = Server(binary, model, setting, n_ctx=n_ctx, n_threads=n_threads, log=log)
        servers.append(stack.enter_context(server))
    return peers(servers)


def measured(engine: Engine, contenders: Sequence[Contender], plan: Plan) -> list[Record]:
    prompts = [(n, cls, prompt_ids(engine, text)) for n, cls, text in plan.prompts()]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(prompts) * len(contenders))
        return compare(
            contenders,
            prompts,
            plan.max_tokens,
            lambda cls: progress.update(task, description=cls, advance=1),
        )


def affordable(plan: Plan, n_contenders: int, tokens_per_s: float, seconds: float) -> Plan:
    """The plan with answers short enough, if every setting were as fast as plain decoding."""
    stand_in = dataclasses.replace(plan, depths=tuple(range(n_contenders)))
    n = shortened(stand_in, tokens_per_s, seconds).max_tokens
    return dataclasses.replace(plan, max_tokens=n)


@app.command("run")
def run(
    server: Annotated[Path, typer.Option(help="The llama-server to compare with.")] = BINARY,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="A Llama-type target.")
    ] = None,
    heads: Annotated[Path | None, typer.Option(help="Its head file.")] = None,
    draft_model: Annotated[
        Path | None, typer.Option(help="For llama-server to draft with, where it has no heads.")
    ] = None,
    outtype: Annotated[
        str | None, typer.Option(help=f"Requantize the target: {', '.join(OUTTYPES)}.")
    ] = None,
    scaled: Annotated[
        str | None, typer.Option(help=f"Widen it, as benchmarks.scaled: {', '.join(SIZES)}.")
    ] = None,
    classes: Annotated[str, typer.Option(help="mtp-bench's. [default: all]")] = ",".join(PROMPTS),
    repetitions: Annotated[int, typer.Option(min=1)] = 5,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=2)] = 64,
    minutes: Annotated[float, typer.Option(help="Of answers, were all as fast as plain.")] = 8,
    quick: Annotated[bool, typer.Option("--quick", help="Three classes, once.")] = False,
    ctx: Annotated[int, typer.Option(min=512)] = 2048,
    threads: Annotated[int | None, typer.Option(min=1, max=MAX_THREADS)] = None,
    workdir: Annotated[Path | None, typer.Option(help="For the packed file and logs.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure ours and llama-server's settings on the same file, alternating."""
    if quick:
        classes, repetitions, minutes = QUICK_CLASSES, 1, 2
    unknown = set(classes.split(",")) - set(PROMPTS)
    if unknown:
        raise typer.BadParameter(f"no class {min(unknown)!r}; there are {', '.join(PROMPTS)}.")
    if outtype is not None and outtype not in OUTTYPES:
        raise typer.BadParameter(f"--outtype: one of {', '.join(OUTTYPES)}.")
    if scaled is not None and scaled not in SIZES:
        raise typer.BadParameter(f"--scaled: one of {', '.join(SIZES)}.")
    if not server.exists():
        raise MtpError(f"{server}: not there; python -m benchmarks.peer build makes it")
    files, n_threads = models.find(model, heads), threads or physical_cores()
    draft_model = None if draft_model is None else models.find(draft_model).model
    plan = Plan(tuple(classes.split(",")), (0.0,), (0,), repetitions, max_tokens)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=workdir)))
        run_file, contenders, settings, engine = contenders_of(
            stack, files, draft_model, folder, outtype, scaled, ctx, n_threads
        )
        contenders += start(stack, server, run_file, settings, ctx, n_threads, folder)
        plan = affordable(plan, len(contenders), warm_up(engine), 60 * minutes)
        records = measured(engine, contenders, plan)
        name = str(open_model(run_file).file.get("general.name", ""))
    report.show(Console(width=None if sys.stdout.isatty() else 200), name, records)
    if json_file is not None:
        program = "python -m benchmarks.peer"
        used = dataclasses.replace(files, draft_model=draft_model)
        holds_for = recording.provenance("peer", program, n_threads, used, quick=quick)
        found = as_json(server, name, settings, ctx, plan, records)
        recording.write(json_file, {**holds_for, **found})


def as_json(
    server: Path, name: str, settings: Sequence[Setting], n_ctx: int, plan: Plan,
    records: list[Record],
) -> dict[str, Any]:  # fmt: skip
    """One record for each class, repetition, tool and setting; see `Record`."""
    return {
        "name": name,
        "llama_server_build": building.configuration(server),
        "settings": {setting.name: _named(setting.options) for setting in settings},
        "n_ctx": n_ctx,
        "max_tokens": plan.max_tokens,
        "repetitions": plan.repetitions,
        "summary": summary(records),
        "records": [record.to_json() for record in records],
    }


def _named(options: Sequence[str]) -> list[str]:
    """Of files only their names."""
    return [Path(option).name if "/" in option else option for option in options]


if __name__ == "__main__":
    try:
        app(prog_name="python -m benchmarks.peer")
    except MtpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
