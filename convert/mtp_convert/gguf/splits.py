"""A model in several files (name-00001-of-00003.gguf), read as if it were one.

Owns llama.cpp's naming of the parts, their three `split.*` keys, and the checks that the parts
belong together. Knows nothing of models.
"""

from __future__ import annotations

import re
from pathlib import Path

from mtp_cli.errors import MtpError
from mtp_convert.gguf.header import GgufFile, GgufTensor, read_gguf

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MAX_PARTS = 9999


def read_whole(path: Path) -> GgufFile:
    """A GGUF file, with its other parts where it is one part of a model; any part names them all.

    The metadata is the first part's, without the keys that tell of the split. Raises MtpError
    when a part is missing, or is not of this model.
    """
    given = read_gguf(path)
    n_parts = given.count(COUNT)
    if n_parts <= 1:
        return _merged([given])
    parts = [_part(name, i, n_parts) for i, name in enumerate(_names(path, n_parts))]
    whole = _merged(parts)
    n_tensors = parts[0].count(TENSORS, len(whole.tensors))
    if n_tensors != len(whole.tensors):
        raise MtpError(
            f"{parts[0].path}: {TENSORS}: expected {n_tensors} tensors in {n_parts} parts, found "
            f"{len(whole.tensors)}"
        )
    return whole


def parts_of(path: Path) -> list[Path]:
    """All files of the model that a file is of; the file alone where it is no readable part."""
    try:
        n_parts = read_gguf(path).count(COUNT)
        return _names(path, n_parts) if n_parts > 1 else [path]
    except MtpError:
        return [path]


def _names(path: Path, n_parts: int) -> list[Path]:
    match = _PART.fullmatch(path.name)
    if match is None or int(match["count"]) != n_parts or n_parts > MAX_PARTS:
        raise MtpError(
            f"{path}: one of {n_parts} parts; expected a name that ends in "
            f"-00001-of-{n_parts:05}.gguf"
        )
    names = [path.with_name(f"{match['stem']}-{i + 1:05}-of-{n_parts:05}.gguf")
             for i in range(n_parts)]  # fmt: skip
    missing = [name for name in names if not name.exists()]
    if missing:
        raise MtpError(
            f"{path}: {len(missing)} of {n_parts} parts missing, the first is {missing[0].name}"
        )
    return names


def _part(path: Path, number: int, n_parts: int) -> GgufFile:
    part = read_gguf(path)
    found = part.count(NUMBER), part.count(COUNT)
    if NUMBER not in part.pairs or found != (number, n_parts):
        raise MtpError(
            f"{path}: expected part {number} of {n_parts} ({NUMBER}, {COUNT}), found "
            f"{found[0]} of {found[1]}"
        )
    return part


def _merged(parts: list[GgufFile]) -> GgufFile:
    tensors: dict[str, GgufTensor] = {}
    for part in parts:
        twice = part.tensors.keys() & tensors.keys()
        if twice:
            raise MtpError(f"{part.path}: {min(twice)}: in an earlier part too")
        tensors |= part.tensors
    first = parts[0]
    pairs = {k: v for k, v in first.pairs.items() if k not in (NUMBER, COUNT, TENSORS)}
    return GgufFile(first.path, pairs, tensors)
