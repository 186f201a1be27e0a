"""`mtp-chat models`: the models on this machine, by the names that `--model` takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mtp_cli.options import HELP
from mtp_cli.screen import is_terminal, visible
from mtp_cli.waiting import Wait

app = typer.Typer(
    context_settings=HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_EPILOG = """\b
They are found where the Hugging Face cache, llama.cpp, Ollama and LM Studio keep
them, and in the folders of MTP_MODELS. Nothing is downloaded, and no model loaded."""


@app.command(epilog=_EPILOG)
def models(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORD", help="Only those whose name has all of these."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
) -> None:
    """List the models on this machine: name, size, format, context, what drafts, memory."""
    from mtp_cli.library.facts import facts_of, table
    from mtp_cli.library.stores import stored

    with Wait(lambda: "looking through the models here", sys.stderr, quiet=False):
        found = [model for model in stored() if _has(model.names, words or ())]
        facts = sorted(facts_of(found), key=lambda model: model.name.lower())
    if as_json:
        typer.echo(json.dumps([model.as_json() for model in facts], indent=1))
    else:
        for line in _aligned([*table(facts)]):
            typer.echo(visible(line))


def _has(names: Sequence[str], words: Sequence[str]) -> bool:
    return all(any(word.lower() in name.lower() for name in names) for word in words)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they have to be; for a pipe, tabs between."""
    if not is_terminal(sys.stdout):
        return ["\t".join(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
