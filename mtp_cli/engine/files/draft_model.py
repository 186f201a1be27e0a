"""Checks whether a whole model can draft for a target, as far as headers tell."""

from __future__ import annotations

from pathlib import Path

from mtp_cli.engine.files import gguf_header
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.errors import MtpError

_KEY_KIND = "tokenizer.ggml.model"


def check(target: list[Header], path: Path) -> None:
    """Raise MtpError, naming the draft model and what to do, when it is not for this target."""
    model = gguf_header.read_shards(path)[0]
    if gguf_header.is_drafter(model):
        raise MtpError(f"{path}: these are heads, and no model of its own; give them with --heads")
    kind, wanted = (header.pairs.get(_KEY_KIND) for header in (model, target[0]))
    if kind != wanted:
        raise MtpError(
            f"{path}: its tokenizer is of kind {kind}, that of {target[0].path.name} of kind "
            f"{wanted}; take a smaller model of the same family"
        )
