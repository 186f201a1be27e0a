"""The settings' file: TOML, with a key for every option and a table of aliases.

Owns where it is, and on which line of it something stands. Knows nothing of options.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from mtp_cli.errors import MtpError, path_fault

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VARIABLE = "MTP_CONFIG"  # in the environment: another file
ALIASES = "aliases"
_TABLE = re.compile(r"\s*\[\s*(?P<name>[^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY = re.compile(r"""\s*(?P<quote>["']?)(?P<key>[^"'=]+?)(?P=quote)\s*=""")


@dataclass(frozen=True)
class SettingsFile:
    """What the file at `path` says; nothing where there is none.

    values:  by key; aliases: the user's names for models
    lines:   of each key, from 1; those of aliases begin with "aliases."
    """

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def place(self, key: str) -> str:
        """Where a key stands, for people."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)


def path() -> Path:
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own).expanduser()
    return Path(platformdirs.user_config_dir("mtp-cli")) / "config.toml"


def read() -> SettingsFile:
    """The user's settings; MtpError, with the line, where they are no TOML."""
    place = path()
    try:
        text = place.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return SettingsFile(place)
    except UnicodeDecodeError as error:
        raise MtpError(f"{place}: not UTF-8 text at byte {error.start}") from None
    except OSError as error:
        raise MtpError(
            f"{place}: {path_fault(error)}; mend it, or name another with {VARIABLE}"
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MtpError(f"{_with_line(place, str(error))}; mend that line") from None
    except RecursionError:
        raise MtpError(f"{place}: too deeply nested") from None
    lines = _lines(text)
    aliases = values.pop(ALIASES, {})
    _check_aliases(SettingsFile(place, lines=lines), aliases)
    return SettingsFile(place, values, aliases, lines)


def _with_line(place: Path, message: str) -> str:
    """tomllib's message, its line behind the path as editors have it."""
    match = re.fullmatch(r"(?P<what>.*) \(at line (?P<line>\d+), column \d+\)", message, re.DOTALL)
    what, where = (match["what"], f"{place}:{match['line']}") if match else (message, str(place))
    return f"{where}: not TOML: {what}"


def _lines(text: str) -> dict[str, int]:
    """Where keys are set: those of a table begin with its name."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE.fullmatch(line):
            table = match["name"].strip("\"' ") + "."
            found.setdefault(table.removesuffix("."), number)
        elif match := _KEY.match(line):
            found.setdefault(table + match["key"].strip(), number)
    return found


def _check_aliases(file: SettingsFile, aliases: object) -> None:
    if not isinstance(aliases, dict):
        raise MtpError(f'{file.place(ALIASES)}: expected a table, as [{ALIASES}] fast = "hf:..."')
    for name, value in aliases.items():
        if not isinstance(value, str) or not value:
            place = file.place(f"{ALIASES}.{name}")
            raise MtpError(
                f"{place}: {name}: expected a model in quotation marks: a path, a name or "
                "hf:USER/REPO"
            )
