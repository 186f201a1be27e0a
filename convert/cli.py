"""The command `mtp-convert`: arguments in, plans out, errors in one place.

Owns the command line only. Knows nothing of formats or families: each command makes a plan
elsewhere and hands it to `write`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from convert.build import Options, Part, plan_checkpoint
from convert.checkpoint import open_checkpoint
from convert.formats import OUTTYPES
from convert.plan import Plan
from convert.report import notices, plan_lines, progress_bar, summary_lines
from convert.write import write
from mtp_cli.errors import MtpError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Gets multi-token-prediction heads into GGUF files, and out of them.",
)

Out = Annotated[Path, typer.Option("--output", "-o", help="The GGUF file to write.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]


def _format(name: str | None) -> str | None:
    if name is not None and name not in OUTTYPES:
        raise typer.BadParameter(f"expected one of {', '.join(OUTTYPES)}")
    return name


FORMATS = ", ".join(OUTTYPES)
Outtype = Annotated[
    str, typer.Option("--outtype", callback=_format, help=f"Number format: {FORMATS}.")
]
HeadOuttype = Annotated[
    str | None,
    typer.Option(
        "--head-outtype",
        callback=_format,
        help="Number format of the heads. Default: as --outtype, but at least q8_0.",
    ),
]


@app.callback()
def commands() -> None:
    """mtp-convert COMMAND: convert, and the commands that follow it."""


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A folder with config.json and safetensors.")],
    output: Out,
    heads_only: Annotated[bool, typer.Option("--heads-only", help="A file of heads only.")] = False,
    no_heads: Annotated[bool, typer.Option("--no-heads", help="The trunk only.")] = False,
    outtype: Outtype = "bf16",
    head_outtype: HeadOuttype = None,
    pre: Annotated[
        str | None, typer.Option("--pre", help="llama.cpp's name for the pre-tokenizer.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The model's name.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Convert a checkpoint, trunk and heads, into one GGUF."""
    if heads_only and no_heads:
        raise typer.BadParameter("--heads-only and --no-heads exclude each other")
    part: Part = "heads" if heads_only else "trunk" if no_heads else "all"
    options = Options(part, outtype, head_outtype, pre, name)
    _execute(plan_checkpoint(open_checkpoint(checkpoint), options), output, dry_run)


def _execute(plan: Plan, output: Path, dry_run: bool) -> None:
    """Show the plan, or run that very plan."""
    if dry_run:
        for line in plan_lines(plan, output):
            typer.echo(line)
        return
    with progress_bar(output.name) as progress:
        write(plan, output, progress)
    for line in summary_lines(plan, output):
        notices.print(line, markup=False, soft_wrap=True)


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: expected errors in one line, exit 1; an interruption leaves nothing, 130."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except MtpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
