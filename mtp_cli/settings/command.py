"""Commands that follow the settings: which they are, and how settings get in place of defaults.

Knows nothing of what options mean.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

from mtp_cli.settings import file, options
from mtp_cli.settings.options import Setting

# Command -> the module that has its Typer app as `app`; in the order in which they are shown.
COMMANDS = {
    "mtp-chat": "mtp_cli.chat.cli",
    "mtp-serve": "mtp_cli.serve.cli",
    "mtp-bench": "mtp_cli.bench.cli",
}
_WITHOUT_SETTINGS = {"-h", "--help", "--version"}  # which answer whatever the settings are


class Configured(TyperCommand):
    """A command whose defaults are the user's settings.

    own: keys that no setting holds for, since elsewhere they mean something else
    """

    own: ClassVar[tuple[str, ...]] = ()

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        if not (extra.get("resilient_parsing") or _WITHOUT_SETTINGS & {*args}):
            found = self._settings(args)
            extra["default_map"] = {setting.parameter: setting.value for setting in found}
            self.note(found)
        return super().make_context(info_name, args, parent, **extra)

    def _settings(self, args: list[str]) -> list[Setting]:
        """What the user's file and environment say instead of defaults."""
        parser = self.make_parser(typer.Context(self, resilient_parsing=True))
        given, _rest, _order = parser.parse_args([*args])  # what is wrong in them is said later
        named = [key for key, parameter in options.keys(self).items() if parameter.name in given]
        return options.settings(self, file.read(), named, all_keys)

    def note(self, found: list[Setting]) -> None:
        """Where the command says which it follows."""


def load(name: str) -> Any:
    """One of COMMANDS."""
    return typer.main.get_command(importlib.import_module(COMMANDS[name]).app)


def all_keys() -> set[str]:
    """The keys of all commands."""
    return {key for name in COMMANDS for key in options.keys(load(name))}
