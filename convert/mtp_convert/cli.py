"""The command `mtp-convert`: arguments in, plans out, errors in one place.

Owns the command line only. Knows nothing of formats or families: each command makes a plan
elsewhere and hands it to `write`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mtp_cli.errors import MtpError
from mtp_cli.library.names import locate
from mtp_cli.model_options import CacheTypeK, CacheTypeV
from mtp_cli.options import HELP, MAX_INT32, Version
from mtp_cli.screen import printing, say_error, visible
from mtp_cli.waiting import Wait
from mtp_convert.commands.destination import Destination, execute, say
from mtp_convert.commands.options import (
    AnyOuttype,
    DryRun,
    Force,
    HeadOuttype,
    NoHeadOuttype,
    Out,
    Outtype,
)

# What a command works with is imported when it runs, so that help comes without numpy.
if TYPE_CHECKING:
    from mtp_convert.commands.build import Part
    from mtp_convert.gguf.reuse import Wanted

app = typer.Typer(
    context_settings=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Gets multi-token-prediction heads into GGUF files, and out of them.",
)

INTERRUPTED = 130
_N_IDS = 8192  # that a trimmed head keeps
WORSE = 3  # exit status of `check` where heads accept less than when they were made


@app.callback()
def commands(version: Version = False) -> None:
    """Gets multi-token-prediction heads into GGUF files, and out of them."""


@app.command()
def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A folder with config.json and safetensors."),
    ],
    output: Out,
    heads_only: Annotated[bool, typer.Option("--heads-only", help="A file of heads only.")] = False,
    no_heads: Annotated[bool, typer.Option("--no-heads", help="The target only.")] = False,
    outtype: Outtype = "bf16",
    head_outtype: HeadOuttype = None,
    pre: Annotated[
        str | None,
        typer.Option("--pre", metavar="NAME", help="llama.cpp's name for the pre-tokenizer."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The model's name.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--target",
            metavar="PATH",
            help="For an EAGLE-3, DFlash or DSpark drafter: its target, a folder or GGUF.",
        ),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Convert a checkpoint, target and heads, into one GGUF."""
    from mtp_convert.checkpoint.folder import open_checkpoint
    from mtp_convert.commands.build import Options, plan_checkpoint

    if heads_only and no_heads:
        raise typer.BadParameter("--heads-only and --no-heads exclude each other")
    part: Part = "heads" if heads_only else "target" if no_heads else "all"
    target = None if target is None else locate(target)
    options = Options(part, outtype, head_outtype, pre, name, target)
    with _reading(checkpoint):
        plan = plan_checkpoint(open_checkpoint(checkpoint), options)
    inputs = [checkpoint] if target is None else [checkpoint, target]
    execute(plan, Destination(output, inputs, force, dry_run))


@app.command()
def graft(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A GGUF without heads.")],
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="The folder of the same model's checkpoint."),
    ],
    output: Out,
    outtype: AnyOuttype = None,
    head_outtype: HeadOuttype = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Join a checkpoint's heads to an existing GGUF of the same model."""
    from mtp_convert.commands.graft import plan_graft

    target = locate(target)
    with _reading(target):
        plan = plan_graft(target, checkpoint, _wanted(outtype, head_outtype))
    execute(plan, Destination(output, [target, checkpoint], force, dry_run))


@app.command(short_help="Join a target and its head file into one GGUF.")
def pack(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A dense Llama-type GGUF.")],
    heads: Annotated[Path, typer.Argument(metavar="HEADS", help="A head file made by mtp-train.")],
    output: Out,
    outtype: AnyOuttype = None,
    head_outtype: HeadOuttype = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Join a target and its head file into one GGUF that llama.cpp's own tools draft with."""
    from mtp_convert.commands.pack import plan_pack

    target, heads = locate(target), locate(heads)
    with _reading(target):
        plan = plan_pack(target, heads, _wanted(outtype, head_outtype))
    execute(plan, Destination(output, [target, heads], force, dry_run))


@app.command()
def extract(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF with heads.")],
    output: Out,
    outtype: AnyOuttype = None,
    head_outtype: HeadOuttype = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Take the heads out of a GGUF into a head file."""
    from mtp_convert.commands.detach import plan_extract

    model = locate(model)
    with _reading(model):
        plan = plan_extract(model, _wanted(outtype, head_outtype))
    execute(plan, Destination(output, [model], force, dry_run))


@app.command()
def strip(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF with heads.")],
    output: Out,
    outtype: AnyOuttype = None,
    head_outtype: NoHeadOuttype = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Write a GGUF without its heads."""
    from mtp_convert.commands.detach import plan_strip

    model = locate(model)
    with _reading(model):
        plan = plan_strip(model, _wanted(outtype, head_outtype))
    execute(plan, Destination(output, [model], force, dry_run))


@app.command()
def trim(
    heads: Annotated[Path, typer.Argument(metavar="HEADS", help="A head file.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Its target.")],
    output: Out,
    ids: Annotated[
        int | None,
        typer.Option(
            "--ids",
            metavar="N",
            min=1,
            help="How many ids to keep. [default: 8192; all of a file with d2t]",
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", metavar="FILE", help="Text that stands for your use."),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            "--tokens", metavar="N", min=1, help="Without --text: what the model writes itself."
        ),
    ] = 20_000,
    d2t: Annotated[
        bool,
        typer.Option(
            "--d2t", help="Keep the embedding whole and write which ids: llama.cpp#29143's form."
        ),
    ] = False,
    outtype: AnyOuttype = None,
    head_outtype: HeadOuttype = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make a head with a smaller draft vocabulary, chosen from text."""
    from mtp_convert.commands import common_form
    from mtp_convert.commands.report import counting_bar
    from mtp_convert.commands.trial import ends_of_text, ids_of_text, written_by
    from mtp_convert.commands.trim import check_common, count_ids, old_ids, parted, plan_trim
    from mtp_convert.gguf.model import open_model

    heads, target = locate(heads), locate(target)
    destination = Destination(output, [heads, target, *(text or [])], force, dry_run)
    head, owner = open_model(heads), open_model(target)
    given_ids = common_form.draft_ids(head)
    size = ids or (_N_IDS if given_ids is None else len(given_ids))
    n_before = len(old_ids(head, owner, size))
    destination.check()  # before an hour of writing text
    wanted = _wanted(outtype, head_outtype)
    if d2t:
        check_common(heads, target, size, wanted)
    given = [_read(path) for path in text or []]
    chosen, held_out = parted([])
    if size < n_before:
        with counting_bar("writing text") as progress:
            texts = ids_of_text(target, given) if given else written_by(target, tokens, progress)
            chosen, held_out = parted(texts)  # written meanwhile
    counts = count_ids(chosen, owner.n_vocab)
    trimmed = plan_trim(heads, target, counts, size, ends_of_text(target), wanted, common=d2t)
    execute(trimmed.plan, destination)
    if chosen:
        share = trimmed.coverage(count_ids(held_out or chosen, owner.n_vocab))
        where = "text held out" if held_out else "the text"
        say(f"{size} of {n_before} ids cover {share:.2%} of {where}")
    if not dry_run:
        _say_acceptance(target, {"before": heads, "after": output})


def _say_acceptance(target: Path, by_name: Mapping[str, Path]) -> None:
    """Of head files, what each accepts on the same prompts."""
    from mtp_convert.commands import common_form
    from mtp_convert.commands.trial import try_heads
    from mtp_convert.gguf.model import open_model

    for name, heads in by_name.items():
        if not common_form.runs(open_model(heads)):
            say(f"acceptance {name}: nothing here runs {heads.name}")
            continue
        with _trying(heads):
            shares = ", ".join(f"{share:.3f}" for share in try_heads(target, heads).acceptance)
        say(f"acceptance by position {name}: {shares}")


@app.command(short_help="Load a model with heads, and judge the heads.")
def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF.")],
    heads: Annotated[
        Path | None, typer.Option("--heads", metavar="PATH", help="Its head file.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All 50 chat prompts, instead of one of each kind.")
    ] = False,
) -> None:
    """Load a model with heads, draft and verify on built-in texts, and judge the heads.

    Exits 3 where they accept less than when they were made.
    """
    from mtp_convert.commands.quality import measure
    from mtp_convert.commands.record import record_in
    from mtp_convert.commands.trial import try_heads
    from mtp_convert.gguf.model import coarse_tensors, open_model

    model, heads = locate(model), None if heads is None else locate(heads)
    owner = open_model(heads or model)
    if not owner.n_heads and not owner.is_beside:
        raise MtpError(f"{owner.path}: holds no MTP heads; mtp-convert graft or pack adds them")
    recorded = record_in(owner)
    with _trying(heads or model):
        tried = try_heads(model, heads)
    for line in tried.lines(coarse_tensors(owner)):
        typer.echo(visible(line))
    with _trying(heads or model):
        quality = measure(model, heads, recorded, every=every)
    for line in quality.lines() if quality else ():
        typer.echo(visible(line))
    if quality and quality.is_worse:
        raise typer.Exit(WORSE)


@app.command("inspect")
def inspect_command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A checkpoint folder or a GGUF.")],
    memory: Annotated[
        bool, typer.Option("--memory", help="Say how much memory a GGUF takes to run.")
    ] = False,
    ctx: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=MAX_INT32, help="With --memory: tokens. [default: 8192]"
        ),
    ] = None,
    cache_type_k: CacheTypeK = "f16",
    cache_type_v: CacheTypeV = "f16",
) -> None:
    """Say what a checkpoint or a GGUF holds, and what can run it."""
    from mtp_convert.commands.inspect import inspect_lines
    from mtp_convert.commands.memory import memory_lines

    if not memory and (ctx is not None or (cache_type_k, cache_type_v) != ("f16", "f16")):
        raise typer.BadParameter("--ctx and --cache-type-* are for --memory: give it, too.")
    path = locate(path)
    with _reading(path):
        lines = [*inspect_lines(path)]
        if memory:
            lines += memory_lines(path, ctx, cache_type_k, cache_type_v)
    for line in lines:
        typer.echo(visible(line))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise MtpError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MtpError(f"{path}: not UTF-8 text") from error


def _reading(path: Path) -> Wait:
    return Wait(lambda: f"reading {path.name}", sys.stderr, quiet=False)


def _trying(path: Path) -> Wait:
    return Wait(lambda: f"trying the heads of {path.name}", sys.stderr, quiet=False)


def _wanted(outtype: str | None, head_outtype: str | None) -> Wanted:
    from mtp_convert.gguf.reuse import Wanted

    return Wanted(outtype, head_outtype)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: expected errors in one line, exit 1; an interruption leaves nothing, 130."""
    signal.signal(signal.SIGTERM, _terminated)
    # A closed terminal; under nohup it is ignored, and stays so.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminated)
    try:
        with printing():
            app(prog_name="mtp-convert")
    except MtpError as error:
        say_error(error, sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        say_error(MtpError(f"{error.filename}: {error.strerror}"), sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer's own answer to KeyboardInterrupt
            print("interrupted; no unfinished file was left", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
