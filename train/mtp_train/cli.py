"""The command `mtp-train`: makes heads for a target, step by step or all at once.

Owns the command line and what it prints (all of it on stderr, results on stdout). Every command
continues what it finds in its folder, so the same line can be run again after an interruption.
"""

from __future__ import annotations

import sys

import typer

from mtp_cli.errors import MtpError
from mtp_cli.options import HELP, Version
from mtp_cli.screen import printing, say_error
from mtp_train.commands.fit import fit
from mtp_train.commands.generate import generate
from mtp_train.commands.heads import export, measure
from mtp_train.commands.run import run
from mtp_train.pytorch import INSTALL_TORCH, NO_TORCH

INTERRUPTED = 130

app = typer.Typer(
    context_settings=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Makes multi-token-prediction heads for a model that has none. The model writes its own "
    f"training text. Needs PyTorch; in a clone of mtp-cli: {INSTALL_TORCH}",
)


@app.callback()
def commands(version: Version = False) -> None:
    """Makes multi-token-prediction heads for a model that has none."""


app.command(short_help="Have the target write its training text.")(generate)
app.command(short_help="Train a head on the corpus.")(fit)
app.command(short_help="Write the checkpoint as a head file.")(export)
app.command(short_help="Acceptance at each draft position.")(measure)
app.command(short_help="Everything: write the text, train, export, measure, report.")(run)


def main() -> None:
    try:
        with printing():
            app(prog_name="mtp-train")
    except MtpError as error:
        say_error(error, sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        say_error(MtpError(NO_TORCH), sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer's own answer to KeyboardInterrupt
            print("interrupted; the same line again goes on from here", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
