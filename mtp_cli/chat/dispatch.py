"""Commands of `mtp-chat` beside the chat itself: a first word that is exactly the name of one.

Owns the table of them and where `--help` lists it. Knows nothing of what commands do: each is a
Typer app in a module of its own, imported when it is asked for.
"""

from __future__ import annotations

import importlib
import itertools
from typing import Any, NamedTuple

import typer

from mtp_cli.settings.command import Configured


class Command(NamedTuple):
    """module: has the Typer app as `app`; help: a line in `mtp-chat --help`"""

    module: str
    help: str

    def load(self) -> Any:
        """The command that typer makes of the app."""
        return typer.main.get_command(importlib.import_module(self.module).app)


# As --help lists them. A REQUEST that is one of these words alone goes after `--`.
COMMANDS: dict[str, Command] = {
    "models": Command("mtp_cli.library.cli", "The models on this machine."),
    "config": Command("mtp_cli.chat.config", "The settings in force, and where they are set."),
    "log": Command("mtp_cli.log.cli", "What was said before: list, search, show, export, delete."),
}

_CONTINUE = "--continue"  # the option that may stand without its value
LAST = "last"  # which then is its value


def names(incomplete: str) -> list[str]:
    """For a shell that completes the first word."""
    return [name for name in COMMANDS if name.startswith(incomplete)]


def _with_values(args: list[str]) -> list[str]:
    """The arguments, in which `--continue` has a value: what follows, where that is a number."""
    end = args.index("--") if "--" in args else len(args)
    given: list[str] = []
    for arg, following in itertools.zip_longest(args[:end], args[1:end], fillvalue=""):
        given.append(arg)
        if arg == _CONTINUE and not following.isdecimal():
            given.append(LAST)
    return given + args[end:]


class OrCommand(Configured):
    """A command of options and arguments that gives way to those of the table."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        command = COMMANDS.get(args[0]) if args else None
        if command is None:
            return super().make_context(info_name, _with_values(args), parent, **extra)
        return command.load().make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if COMMANDS:
            with formatter.section("Commands"):
                formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])
        super().format_epilog(ctx, formatter)
