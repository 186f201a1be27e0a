"""`mtp-chat config`: which settings are in force, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mtp_cli.options import HELP
from mtp_cli.screen import visible
from mtp_cli.settings import file as settings_file
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
    """Show the settings in force, where each is set, and the settings' file."""
    from mtp_cli.chat.cli import app as chat

    command = typer.main.get_command(chat)
    file = settings_file.read()
    found = {setting.key: setting for setting in settings(command, file)}
    if as_json:
        typer.echo(json.dumps(_document(command, file, found), indent=1, ensure_ascii=False))
        return
    there = "" if file.path.exists() else " (not there yet)"
    typer.echo(visible(f"file: {file.path}{there}"))
    for name, model in file.aliases.items():
        typer.echo(visible(f'alias: {name} = "{model}"  ({file.place(f"aliases.{name}")})'))
    for wrong, right in misspelt(command):
        typer.echo(visible(f"note: {wrong} is no setting; did you mean {right}?"))
    for line in _lines(command, found):
        typer.echo(visible(line))


def _lines(command: Any, found: dict[str, Setting]) -> list[str]:
    known = keys(command)
    width = max(map(len, known))
    lines = []
    for key, parameter in known.items():
        value, source = _in_force(parameter, found.get(key))
        shown = "" if value is None else json.dumps(value, ensure_ascii=False)
        lines.append(f"{key:{width}}  {shown + '  ' if shown else ''}({source})")
    return lines


def _in_force(parameter: Any, setting: Setting | None) -> tuple[Any, str]:
    if setting is None:
        return parameter.default, "default"
    meaning = setting.meaning
    return str(meaning) if isinstance(meaning, Path) else meaning, setting.source


def _document(
    command: Any, file: settings_file.SettingsFile, found: dict[str, Setting]
) -> dict[str, Any]:
    options = {}
    for key, parameter in keys(command).items():
        value, source = _in_force(parameter, found.get(key))
        options[key] = {"value": value, "source": source, "variable": variable(key)}
    return {"file": str(file.path), "aliases": dict(file.aliases), "options": options}
