"""`mtp-chat config`: which settings are in force, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from mtp_cli.options import HELP
from mtp_cli.screen import visible
from mtp_cli.settings import file as settings_file
from mtp_cli.settings.command import COMMANDS, all_keys, load
from mtp_cli.settings.options import Setting, keys, misspelt, settings, variable

app = typer.Typer(
    context_settings=HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_EPILOG = """\b
The command line goes before the environment, that before the file, and the file
before defaults. A key is an option's name: max-tokens = 500. MTP_CONFIG names
another file."""


@app.command(epilog=_EPILOG)
def config(
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as one JSON object.")] = False,
) -> None:
    """Show the settings in force for mtp-chat, mtp-serve and mtp-bench, and where each is set."""
    file = settings_file.read()
    followers = {name: _Follower.of(name, file) for name in COMMANDS}
    if as_json:
        typer.echo(json.dumps(_document(file, followers), indent=1, ensure_ascii=False))
        return
    there = "" if file.path.exists() else " (not there yet)"
    typer.echo(visible(f"file: {file.path}{there}"))
    for name, model in file.aliases.items():
        typer.echo(visible(f'alias: {name} = "{model}"  ({file.place(f"aliases.{name}")})'))
    for wrong, right in misspelt(all_keys()):
        typer.echo(visible(f"note: {wrong} is no setting; did you mean {right}?"))
    for line in _lines(followers):
        typer.echo(visible(line))


class _Follower(NamedTuple):
    """A command that follows the settings.

    known: its options by key; found: what is set of them
    """

    known: dict[str, Any]
    found: dict[str, Setting]

    @classmethod
    def of(cls, name: str, file: settings_file.SettingsFile) -> _Follower:
        command = load(name)
        found = settings(command, file, (), all_keys)
        return cls(keys(command), {setting.key: setting for setting in found})

    def in_force(self, key: str) -> tuple[Any, str]:
        """An option's value, and where it is from."""
        parameter, setting = self.known[key], self.found.get(key)
        if setting is None:
            return parameter.default, "default"
        meaning = "(not shown)" if parameter.hide_input else setting.meaning
        return str(meaning) if isinstance(meaning, Path) else meaning, setting.source


def _lines(followers: Mapping[str, _Follower]) -> list[str]:
    """Those of mtp-chat, then what others have beside."""
    width = max(map(len, all_keys()))
    lines, said = [], set[str]()
    for name, follower in followers.items():
        if said:
            lines.append(f"\n{name} follows the options above that it also has. Its own:")
        for key in (key for key in follower.known if key not in said):
            value, source = follower.in_force(key)
            shown = "" if value is None else json.dumps(value, ensure_ascii=False)
            lines.append(f"{key:{width}}  {shown + '  ' if shown else ''}({source})")
        said |= follower.known.keys()
    return lines


def _document(
    file: settings_file.SettingsFile, followers: Mapping[str, _Follower]
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, follower in followers.items():
        for key in follower.known:
            if key not in options:
                value, source = follower.in_force(key)
                options[key] = {"value": value, "source": source, "variable": variable(key)}
                options[key]["commands"] = []
            options[key]["commands"].append(name)
    return {"file": str(file.path), "aliases": dict(file.aliases), "options": options}
