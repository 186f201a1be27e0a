"""`mtp-chat log`: what was said before, listed, searched, shown, exported and deleted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mtp_cli.errors import MtpError, path_fault
from mtp_cli.log import export
from mtp_cli.log.store import Entry, Kept, Log, path
from mtp_cli.options import HELP, file_name
from mtp_cli.screen import cells, is_terminal, one_line, say, visible, width
from mtp_cli.whole_file import write_whole

_N_LISTED = 20
_SUFFIXES = {".json": "json", ".md": "markdown"}

app = typer.Typer(
    context_settings=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    invoke_without_command=True,
    epilog="mtp-chat --continue [ID] goes on with one. --no-log, or MTP_NO_LOG=1, keeps none.",
)

_Number = Annotated[int, typer.Option("--number", "-n", metavar="N", min=1, help="At most N.")]
_Id = Annotated[
    int | None,
    typer.Argument(metavar="ID", show_default=False, help="Which one. [default: the last]"),
]


@app.callback()
def log(context: typer.Context, number: _Number = _N_LISTED) -> None:
    """List the conversations that were kept.

    The newest first: ID, day, model, number of questions, the first question.
    """
    if context.invoked_subcommand is None:
        with _opened() as opened:
            _show_entries(opened.entries(number))


@app.command()
def search(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD...", show_default=False, help="All in one exchange; wor* too."
        ),
    ],
    number: _Number = _N_LISTED,
) -> None:
    """Find questions and answers by their words.

    The best first: ID, day, model, which exchange, the words around.
    """
    with _opened() as opened:
        _show_entries(opened.search(words, number))


@app.command()
def show(id_: _Id = None) -> None:
    """Print a conversation, as Markdown."""
    with _opened() as opened:
        text = export.exported(_found(opened, id_), "markdown")
    typer.echo(visible(text) if is_terminal(sys.stdout) else text, nl=False)


@app.command(name="export")
def export_(
    id_: _Id = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="markdown|json",
            help="json is what /load reads. [default: by the name of --output, else markdown]",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", parser=file_name, help="Not on stdout."),
    ] = None,
) -> None:
    """Write a conversation as Markdown or JSON."""
    if form is None:
        form = _SUFFIXES.get(output.suffix.lower() if output else "", "markdown")
    if form not in export.FORMATS:
        raise typer.BadParameter(f"{form!r} is none of {', '.join(export.FORMATS)}.")
    with _opened() as opened:
        text = export.exported(_found(opened, id_), form)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        write_whole(output.expanduser(), text, is_durable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise MtpError(f"{output}: {path_fault(error)}") from error


@app.command()
def delete(
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID...", show_default=False, help="Which ones.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that are kept.")] = False,
) -> None:
    """Delete conversations."""
    if bool(ids) == all_:
        raise typer.BadParameter("give the IDs of conversations, or --all.")
    with _opened() as opened:
        for id_ in ids or ():
            _found(opened, id_)
        n = opened.delete(None if all_ else ids)
    say(f"deleted {n} {'conversation' if n == 1 else 'conversations'}", sys.stderr)


def _opened() -> Log:
    file = path()
    if not file.exists():
        raise MtpError(f"no conversation was kept yet ({file} is not there)")
    return Log(file)


def _found(opened: Log, id_: int | None) -> Kept:
    wanted = opened.newest() if id_ is None else id_
    if wanted is None:
        raise MtpError("no conversation is kept")
    kept = opened.read(wanted)
    if kept is None:
        raise MtpError(f"there is no conversation {wanted}; mtp-chat log lists them")
    return kept


def _show_entries(entries: Sequence[Entry]) -> None:
    if not entries:
        say("nothing found", sys.stderr)
    columns = width(sys.stdout) if is_terminal(sys.stdout) else None
    for entry in entries:
        line = "  ".join(
            (
                f"{entry.id:>4}",
                export.moment(entry.updated_s),
                one_line(entry.model),
                f"{entry.n:>3}",
                one_line(entry.asked),
            )
        )
        typer.echo(line if columns is None else _cut(line, columns))


def _cut(line: str, columns: int) -> str:
    """As much of it as a terminal has columns for."""
    n_cells = 0
    for at, char in enumerate(line):
        n_cells += cells(char)
        if n_cells >= columns:
            return line[:at] + "…"
    return line
