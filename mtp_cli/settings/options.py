"""From the settings' file and the environment to a command's options, each with its reason.

The command line goes first, then the environment (MTP_ and the option's name), then the file, then
the option's own default. A value is checked by the option itself, so that it is refused in the
same words as on the command line. Knows no option by name but those that exclude each other.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import typer

from mtp_cli.errors import MtpError
from mtp_cli.settings.file import SettingsFile

PREFIX = "MTP_"
# What a setting makes void of those that come after it: the same thing said in another way, or what
# belongs to another model.
_VOID: Mapping[str, tuple[str, ...]] = {
    "model": ("hf-repo", "heads", "draft-model"),
    "hf-repo": ("model", "heads", "draft-model"),
    "heads": ("draft-model",),
    "draft-model": ("heads",),
    "raw": ("system", "chat-template", "template-var", "think"),
    "json-schema": ("grammar",),
    "grammar": ("json-schema",),
}
_MEANT = ("MTP_MODELS",)  # variables of other use, though nearly an option's
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_SIMPLE = (str, int, float)


@dataclass(frozen=True)
class Setting:
    """An option that is set.

    parameter: its name in the program
    value:     as the command line would have it; meaning: what the option makes of it
    source:    where it is set, for people
    """

    key: str
    parameter: str
    value: Any
    source: str
    meaning: Any = None


def keys(command: Any) -> dict[str, Any]:
    """The options that can be set, by name without dashes: none that act at once, as --version."""
    options = (p for p in command.params if p.param_type_name == "option")
    found = {_key(p): p for p in options if p.expose_value and not p.is_eager}
    return {key: p for key, p in found.items() if key not in getattr(command, "own", ())}


def _key(parameter: Any) -> str:
    return str(max(parameter.opts, key=len)).lstrip("-")


def variable(key: str) -> str:
    return PREFIX + key.upper().replace("-", "_")


def settings(
    command: Any, file: SettingsFile, given: Collection[str], others: Callable[[], Collection[str]]
) -> list[Setting]:
    """What file and environment set of a command's options.

    given:  keys that the command line has, which go before
    others: the keys of all commands: one that is another's is passed over

    Raises MtpError for keys that are no option, and values that are none of theirs.
    """
    known = keys(command)
    _check(file, known, others)
    from_file = [_checked(command, s) for s in _of_file(known, file)]
    from_environment = [_checked(command, s) for s in _of_environment(known)]
    taken = set(given) | {void for key in given for void in _VOID.get(key, ())}
    found = []
    for level in (from_environment, from_file):
        kept = [setting for setting in level if setting.key not in taken]
        found += kept
        taken |= {setting.key for setting in kept}
        taken |= {void for setting in kept for void in _VOID.get(setting.key, ())}
    return found


def _check(
    file: SettingsFile, known: Collection[str], others: Callable[[], Collection[str]]
) -> None:
    unknown = [key for key in file.values if key not in known]
    elsewhere = others() if unknown else ()
    for key in unknown:
        if key not in elsewhere:
            raise MtpError(f"{file.place(key)}: {key}: {_no_option(key, elsewhere)}")


def _no_option(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    meant = f"; did you mean {near[0]}?" if near else "; mtp-chat config lists those there are"
    return f"no option is called that{meant}"


def _of_file(known: Mapping[str, Any], file: SettingsFile) -> Iterator[Setting]:
    for key, value in file.values.items():
        if key not in known:
            continue
        place = file.place(key)
        yield Setting(key, known[key].name, _as_typed(known[key], value, place, key), place)


def _of_environment(known: Mapping[str, Any]) -> Iterator[Setting]:
    for key, parameter in known.items():
        text = os.environ.get(variable(key))
        if text:
            value = _flag(text) if parameter.is_flag else [text] if parameter.multiple else text
            if value is None:
                raise MtpError(f"{variable(key)}: expected true or false, found {text!r}")
            yield Setting(key, parameter.name, value, variable(key))


def _flag(text: str) -> bool | None:
    return True if text.lower() in _TRUE else False if text.lower() in _FALSE else None


def _as_typed(parameter: Any, value: object, place: str, key: str) -> object:
    """A value of the file as someone would type it behind the option."""
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise MtpError(f"{place}: {key}: expected true or false")
        return value
    values = value if isinstance(value, list) and parameter.multiple else [value]
    if any(isinstance(one, bool) or not isinstance(one, _SIMPLE) for one in values):
        several = ", or a list of them" if parameter.multiple else ""
        raise MtpError(f"{place}: {key}: expected a number or a text in quotation marks{several}")
    typed = [str(one) for one in values]
    return typed if parameter.multiple else typed[0]


def _checked(command: Any, setting: Setting) -> Setting:
    """The same, once the option has taken it."""
    parameter = keys(command)[setting.key]
    try:
        meaning = parameter.process_value(typer.Context(command), setting.value)
    except typer.BadParameter as error:
        raise MtpError(f"{setting.source}: {setting.key}: {error.message.rstrip('.')}") from None
    return replace(setting, meaning=meaning)


def misspelt(keys: Collection[str]) -> Iterator[tuple[str, str]]:
    """Variables of the environment that are nearly an option's, and that option's.

    keys: of all commands
    """
    known = {variable(key) for key in keys}
    for name in sorted(os.environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        if name.startswith(PREFIX) and name not in (*known, *_MEANT) and near:
            yield name, near[0]
