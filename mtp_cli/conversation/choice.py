"""Which chat template: the model's own, one of those that it names, or a file of the user's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError, path_fault

_KEY = "tokenizer.chat_template"
_FOR_OTHER_USES = ("tool_use", "rag")
_SUFFIX = ".jinja"
_MAX_MB = 4  # the longest template known has 0.02


def named_templates(metadata: Mapping[str, str]) -> dict[str, str]:
    """The templates in a model's file by name; the one that has none is "default"."""
    named = {
        key.removeprefix(f"{_KEY}."): source
        for key, source in metadata.items()
        if key.startswith(f"{_KEY}.")
    }
    named["default"] = metadata.get(_KEY, named.get("default", ""))
    return {name: source for name, source in named.items() if source.strip()}


def usual_template(metadata: Mapping[str, str]) -> str | None:
    """What a model's file means for conversations; None where it has no template, or empty ones."""
    named = named_templates(metadata)
    for name in ("default", "chat", "chat_template"):
        if name in named:
            return named[name]
    others = sorted(named, key=lambda name: (name in _FOR_OTHER_USES, name))
    return named[others[0]] if others else None


def named_template(metadata: Mapping[str, str], name: str) -> str:
    """The template that a model's file calls so; MtpError names those that it has."""
    named = named_templates(metadata)
    if name not in named:
        names = ", ".join(sorted(named)) or "none"
        raise MtpError(f"{name}: no such file, and no chat template of the model (it has: {names})")
    return named[name]


def template_file(name: str) -> str | None:
    """The template in a file; None where `name` may be that of a template inside the model."""
    try:
        path = Path(name).expanduser()
        if not path.exists() and path.name == name and path.suffix != _SUFFIX:
            return None
        if path.stat().st_size > _MAX_MB << 20:
            raise MtpError(f"{name}: not a chat template: more than {_MAX_MB} MB")
        source = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MtpError(f"{name}: not a chat template: not UTF-8 text") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise MtpError(f"cannot read {name}: {path_fault(error)}") from error
    if not source.strip():
        raise MtpError(f"{name}: an empty chat template (--raw does without one)")
    return source


def template_variables(texts: Sequence[str]) -> dict[str, Any]:
    """Of "name=value": values as JSON where they are JSON, as text elsewhere."""
    variables: dict[str, Any] = {}
    for text in texts:
        name, _equals, value = text.partition("=")
        try:
            variables[name] = json.loads(value)
        except (ValueError, RecursionError):
            variables[name] = value
    return variables
