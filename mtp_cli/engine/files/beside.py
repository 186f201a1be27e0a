"""Finds a head file that lies beside its model, under the names that tools give such files.

Works on names and headers alone. A file for another model is passed over: folders hold many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mtp_cli.engine.files import gguf_header
from mtp_cli.engine.files.pairing import pair
from mtp_cli.errors import MtpError
from mtp_cli.paths import parts

_KINDS = "|".join(parts.SIDECARS)
# llama.cpp's, and ours
_NAME = re.compile(rf"({_KINDS})-.*\.gguf|.*-({_KINDS})\.gguf", re.IGNORECASE)
_MOST_READ = 32  # headers; each takes a millisecond


def heads_beside(model: Path) -> Path | None:
    """The head file in the model's folder that was made for it; None where there is none, where the
    model's own file has heads, or where it cannot be read: loading it says why.
    """
    candidates = list(_candidates(model))[:_MOST_READ]
    if not candidates:
        return None
    try:
        shards = gguf_header.read_shards(model)
    except (MtpError, OSError):
        return None
    if gguf_header.has_heads(shards):
        return None
    return next((path for path in candidates if _fits(shards, path)), None)


def _candidates(model: Path) -> Iterator[Path]:
    """Those first that are called after the model, in its folder before those above it.

    Repositories keep the parts of a model in a folder that is called after its quantization.
    """
    yield from _in_folder(model.parent, model)
    if parts.quant(model.parent.name):
        yield from _in_folder(model.parent.parent, model)


def _in_folder(folder: Path, model: Path) -> Iterator[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return
    kinds = parts.SIDECARS
    own = {name for k in kinds for name in (f"{k}-{model.stem}.gguf", f"{model.stem}-{k}.gguf")}
    found = [path for path in found if path != model]
    # A drafter that reads layers says nothing of the model that it was made for, but its shape.
    yield from sorted(found, key=lambda p: (p.name not in own, _kind(p.name)))


def _kind(name: str) -> int:
    """Its place among the kinds."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return parts.SIDECARS.index((match[1] or match[2]).lower())


def _fits(shards: list[gguf_header.Header], path: Path) -> bool:
    try:
        return pair(shards, path) is not None
    except (MtpError, OSError):
        return False
