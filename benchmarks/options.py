"""The options that several benchmarks have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mtp_cli.errors import MtpError
from mtp_cli.whole_file import check_place


def _with_place(path: Path | None) -> Path | None:
    """Before measuring, not after."""
    try:
        if path is not None:
            check_place(path)
    except MtpError as error:
        raise typer.BadParameter(str(error)) from error
    return path


JsonFile = Annotated[
    Path | None, typer.Option("--json", callback=_with_place, help="Write it here, too.")
]
