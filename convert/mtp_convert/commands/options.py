"""The options of `mtp-convert`'s commands that write a file. Knows nothing of what they write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtp_cli.errors import MtpError
from mtp_convert.tensors.outtypes import NAMES, canonical

FORMATS = ", ".join(NAMES)


def _format(name: str | None) -> str | None:
    try:
        return name and canonical(name)
    except MtpError as error:
        raise typer.BadParameter(f"expected one of {FORMATS}") from error


Out = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The GGUF file to write.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Write over a file that is none of mtp-convert's.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
Outtype = Annotated[
    str,
    typer.Option("--outtype", metavar="TYPE", callback=_format, help=f"Number format: {FORMATS}."),
]
HeadOuttype = Annotated[
    str | None,
    typer.Option(
        "--head-outtype",
        metavar="TYPE",
        callback=_format,
        help="Number format of the heads. [default: as --outtype, but at least q8_0]",
    ),
]
AnyOuttype = Annotated[
    str | None,
    typer.Option(
        "--outtype",
        metavar="TYPE",
        callback=_format,
        help=f"Number format: {FORMATS}. [default: as it is]",
    ),
]
NoHeadOuttype = Annotated[
    str | None,
    typer.Option(
        "--head-outtype",
        metavar="TYPE",
        callback=_format,
        help="Of no effect: no heads are written.",
    ),
]
