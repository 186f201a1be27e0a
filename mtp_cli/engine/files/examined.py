"""The files of one model, examined and paired before any is loaded.

Owns the order of the checks; what each looks for is the other modules' of this folder.
"""

from __future__ import annotations

from pathlib import Path

from mtp_cli.engine.files import draft_model as draft_models
from mtp_cli.engine.files import gguf_header
from mtp_cli.engine.files.pairing import Pairing, pair
from mtp_cli.engine.files.preflight import preflight
from mtp_cli.errors import MtpError


def examined(
    model: Path, heads: Path | None, draft_model: Path | None
) -> tuple[list[gguf_header.Header], Pairing | None]:
    """A model's headers, and the heads that draft for it; MtpError where a file cannot be loaded,
    or what is to draft does not fit."""
    preflight(model)
    shards = gguf_header.read_shards(model)
    if gguf_header.is_heads_alone(shards[0]):
        raise MtpError(f"{model}: these are heads without a target; pass them with --heads")
    if draft_model is not None:
        preflight(draft_model)
        draft_models.check(shards, draft_model)
        return shards, None
    if heads is not None:
        preflight(heads, target=model)
    return shards, pair(shards, heads)
