"""Heads that fuse rows of several layers: whether a file has what they need, and fits a target.

Works on headers alone. Every function raises `MtpError` naming the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mtp_cli.engine.backend.gguf_part import without_tensors
from mtp_cli.engine.files.gguf_header import Header, TensorEntry
from mtp_cli.errors import MtpError
from mtp_cli.head_file import FUSE, FUSE_NORM, FUSION, KEY_FUSED_LAYERS, Fused

F32, Q8_0 = 0, 8  # enum ggml_type
FORMATS = {F32: "F32", 1: "F16", Q8_0: "Q8_0", 30: "BF16"}
_BLOCK = 32  # numbers that Q8_0 takes together


def check(heads: Header, fused: Fused | None) -> None:
    """That the fusion's tensors are there, and as the keys say; or not there."""
    if fused is None:
        extra = sorted(name for name in heads.tensors if name in FUSION)
        if extra:
            raise MtpError(f"{heads.path}: {extra[0]}: expected with {KEY_FUSED_LAYERS} only")
        return
    n_embd = heads.number("embedding_length")
    width = len(fused.layers) * n_embd
    norm, fuse = _entry(heads, FUSE_NORM, (width,)), _entry(heads, FUSE, (width, n_embd))
    if norm.ggml_type != F32:
        raise MtpError(f"{heads.path}: {FUSE_NORM}: expected F32")
    if fuse.ggml_type not in FORMATS or (fuse.ggml_type == Q8_0 and width % _BLOCK):
        raise MtpError(
            f"{heads.path}: {FUSE}: expected {', '.join(FORMATS.values())}, the last one for rows "
            f"of whole blocks of {_BLOCK}"
        )
    if heads.number("block_count") != 1 or heads.number("nextn_predict_layers") != 1:
        raise MtpError(f"{heads.path}: {KEY_FUSED_LAYERS}: expected one head, which is reused")


def _entry(heads: Header, name: str, shape: tuple[int, ...]) -> TensorEntry:
    entry = heads.tensors.get(name)
    if entry is None:
        raise MtpError(f"{heads.path}: {name} is missing, which {KEY_FUSED_LAYERS} needs")
    if entry.shape != shape:
        raise MtpError(f"{heads.path}: {name}: expected {shape}, found {entry.shape}")
    return entry


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
