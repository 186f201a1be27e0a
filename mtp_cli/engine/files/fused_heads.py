"""Heads that fuse rows of several layers: whether a file has what they need, and fits a target.

Works on headers alone. Every function raises `MtpError` naming the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mtp_cli.engine.backend.gguf_part import without_tensors
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.errors import MtpError
from mtp_cli.head_file import FUSION, KEY_FUSED_LAYERS, Fused, check_fusion

# enum ggml_type -> the name of a format that a fusion may have
FORMATS = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}


def check(heads: Header, fused: Fused | None) -> None:
    """That the fusion's tensors are there, and as the keys say; or not there."""
    stored = {
        name: (
            heads.tensors[name].shape[::-1],
            FORMATS.get(heads.tensors[name].ggml_type, "another"),
        )
        for name in heads.tensors.keys() & set(FUSION)
    }
    try:
        check_fusion(fused, heads.number("embedding_length"), stored)
    except MtpError as error:
        raise MtpError(f"{heads.path}: {error}") from None
    counts = {heads.number(key) for key in ("block_count", "nextn_predict_layers")}
    if fused is not None and counts != {1}:
        raise MtpError(f"{heads.path}: {KEY_FUSED_LAYERS}: expected one head, which is reused")


def check_layers(target: Header, heads: Header, fused: Fused) -> None:
    """That the target has them."""
    n_layers = target.n_target_layers
    if fused.layers[-1] >= n_layers:
        raise MtpError(
            f"{heads.path}: {KEY_FUSED_LAYERS}: layer {fused.layers[-1]}, and {target.path.name} "
            f"has {n_layers}"
        )


@contextlib.contextmanager
def for_llama_cpp(path: Path) -> Iterator[Path]:
    """A head file as llama.cpp loads it, without the fusion, until the block ends."""
    with without_tensors(path, FUSION) as part:
        try:
            yield part
        except MtpError as error:
            if part == path:
                raise
            raise MtpError(str(error).replace(str(part), str(path))) from None
