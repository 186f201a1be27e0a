"""What people write about a model: the front matter of README.md, names, recommended sampling.

Owns making it fit: these files are written for people, so what is of no use is left out and noted,
and nothing in them stops a conversion. gguf-py knows what each field of a model card is called in
a GGUF, as llama.cpp's converter does. Knows nothing of tensors or families.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import Metadata

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import read_json

CARD, GENERATION = "README.md", "generation_config.json"

_NAMED = ("name", "author", "version", "organization", "description", "finetune", "basename",
          "size_label", "url", "doi", "uuid", "repo_url")  # fmt: skip
_TEXTS = (*_NAMED, *(f"model_{key}" for key in _NAMED), "model_creator", "model_type",
          "license_name", "license_link")  # fmt: skip
_LISTS = ("tags", "pipeline_tag", "languages", "language", "license")
_RELATIVES = ("base_model", "base_models", "base_model_sources", "datasets", "dataset",
              "dataset_sources")  # fmt: skip
# generation_config.json's keys -> (what a GGUF calls them, whether they are whole numbers). All but
# `repetition_penalty`, transformers' word, are those of llama.cpp's converter.
_SAMPLING = {
    "top_k": ("top_k", True), "top_p": ("top_p", False), "min_p": ("min_p", False),
    "xtc_probability": ("xtc_probability", False), "xtc_threshold": ("xtc_threshold", False),
    "temperature": ("temp", False), "penalty_last_n": ("penalty_last_n", True),
    "penalty_repeat": ("penalty_repeat", False), "repetition_penalty": ("penalty_repeat", False),
    "mirostat": ("mirostat", True), "mirostat_tau": ("mirostat_tau", False),
    "mirostat_eta": ("mirostat_eta", False),
}  # fmt: skip

_GREEDY = ("penalty_last_n", "penalty_repeat")  # what changes the likeliest token


def described(folder: Path, total: int, notes: list[str]) -> Metadata:
    """gguf-py's reading of a folder's card and names.

    total: parameters of the model; notes: gets what is left out
    """
    card = dict(_fitting(_front_matter(folder, notes), notes))
    origin = optional(folder / "config.json").get("_name_or_path")
    names = {"_name_or_path": origin} if isinstance(origin, str) else {}
    found = Metadata.apply_metadata_heuristic(Metadata(), card, names, folder, total)
    for key, value in sampling(folder, notes).items():
        setattr(found, f"sampling_{key}", value)
    return found


def sampling(folder: Path, notes: list[str]) -> dict[str, Any]:
    """What generation_config.json recommends, by the names that GGUFs give it."""
    given = optional(folder / GENERATION, notes)
    found: dict[str, Any] = {}
    if isinstance(given.get("sequence"), str):
        found["sequence"] = given["sequence"]
    if given.get("do_sample") is False:  # transformers takes the likeliest token then
        found = {"temp": 0.0}
    for key, (to, is_whole) in _SAMPLING.items():
        value = given.get(key)
        if value is None or to in found:
            continue
        if given.get("do_sample") is False and to not in _GREEDY:
            continue
        if _is_number(value) and (not is_whole or value == int(value)):
            found[to] = int(value) if is_whole else float(value)
        else:
            notes.append(f"{GENERATION}: {key}: {_shown(value)} is left out")
    return found


def _is_number(value: object) -> bool:
    """Of a size that a GGUF's int32 and float32 hold."""
    return type(value) in (int, float) and abs(value) < 1 << 31  # type: ignore[arg-type]


def optional(file: Path, notes: list[str] | None = None) -> dict[str, Any]:
    """A JSON object that nothing depends on: empty where there is none that can be read."""
    try:
        return read_json(file) if file.is_file() else {}
    except MtpError as error:
        if notes is not None:
            notes.append(f"left out: {error}")
        return {}


def _front_matter(folder: Path, notes: list[str]) -> Mapping[object, object]:
    try:
        return Metadata.load_model_card(folder)  # type: ignore[no-any-return]
    except Exception as error:  # PyYAML's own errors, and whatever its constructors raise
        reason = str(error).split("\n")[0][:80] or type(error).__name__
        notes.append(f"{CARD}: its front matter cannot be read and is left out: {reason}")
        return {}


def _fitting(card: Mapping[object, object], notes: list[str]) -> Iterator[tuple[str, Any]]:
    """The fields that a GGUF has a place for, in types that fit there."""
    fields: list[tuple[tuple[str, ...], Callable[[str, object, list[str]], Any]]] = [
        (_TEXTS, _text), (_LISTS, _texts), (_RELATIVES, _relatives)
    ]  # fmt: skip
    for keys, fit in fields:
        for key in keys:
            value = fit(key, card.get(key), notes)
            if value not in (None, []):
                yield key, value


def _text(key: str, value: object, notes: list[str]) -> str | None:
    """A value as text; None where it is none, or none that fits."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):  # YAML's reading of a plain yes or no, which may be Norwegian
        return "yes" if value else "no"
    if isinstance(value, int | float | datetime.date):  # a datetime is a date
        return str(value)
    notes.append(f"{CARD}: {key}: {_shown(value)} is left out")
    return None


def _texts(key: str, value: object, notes: list[str]) -> list[str]:
    values = value if isinstance(value, list) else [value]
    found = (_text(key, each, notes) for each in values)
    return [each for each in found if each is not None]


def _relatives(key: str, value: object, notes: list[str]) -> list[str | dict[str, str]]:
    """Models and data sets it was made from: names, or fields of each."""
    found: list[str | dict[str, str]] = []
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict):
            fields = ((str(name), _text(key, field, notes)) for name, field in each.items())
            found.append({name: text for name, text in fields if text is not None})
        else:
            found += _texts(key, each, notes)
    return found


def _shown(value: object) -> str:
    """A value in a note: short, and not looked into where it may be endless."""
    is_plain = isinstance(value, str | int | float | bool) or value is None
    return repr(value)[:40] if is_plain else f"a {type(value).__name__}"
