"""`mtp-chat`'s options for answers that keep to a form.

Imports nothing heavy, so that `--help` and wrong usage answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

_PANEL = "Answers in a form"

JsonSchema = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|JSON",
        rich_help_panel=_PANEL,
        help="Answers are JSON that is valid under this schema, on one line. Reasoning may come "
        "before.",
    ),
]
GrammarFile = Annotated[
    str | None,
    typer.Option(
        "--grammar",
        metavar="FILE",
        rich_help_panel=_PANEL,
        help="Answers are texts of this grammar, in llama.cpp's GBNF.",
    ),
]
