"""Checks what llama.cpp trusts in a header until it computes, and aborts on or computes nonsense.

Works on headers alone. What llama.cpp refuses itself, or aborts on while it loads, `preflight.py`
finds by trying. Every function raises `MtpError` naming the file.
"""

from __future__ import annotations

import math

from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.errors import MtpError, advised

_AGAIN = "get the file again, or another conversion of the model"
_EPSILONS = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")
_MOST_WINDOW = 2**24  # llama.cpp allocates for every position of it
# By general.type, or the architecture: GGUFs that are of use beside a model only.
_NO_MODELS = {
    "adapter": "a LoRA adapter; merge it into its model with llama-export-lora, then give that",
    "imatrix": "statistics for quantizing a model, without its weights; give the model's GGUF",
    "controlvector": "a control vector; give the GGUF of the model that it steers",
    "vocab": "a vocabulary without weights; give the model's GGUF",
}
# pooling_type in files of models that make one vector, or one score, of a whole text.
_POOLING = {1: "mean", 2: "cls", 3: "last", 4: "rank"}


def check_kind(header: Header) -> None:
    """That a file holds a model at all."""
    kinds = (kind for kind in _NO_MODELS if header.says("general.type", kind))
    kind = next(kinds, header.architecture)
    if kind in _NO_MODELS:
        raise MtpError(f"{header.path}: {_NO_MODELS[kind]}")


def check_writes(header: Header) -> None:
    """That a model was trained to write, which llama.cpp lets any model do."""
    pooling = header.number("pooling_type")
    if pooling in _POOLING:
        what = "a reranker" if _POOLING[pooling] == "rank" else "an embedding model"
        raise MtpError(
            f"{header.path}: {what} (pooling_type {_POOLING[pooling]}), which was not trained to "
            "write; the model that it was made from chats"
        )
    causal = f"{header.architecture}.attention.causal"
    if header.pairs.get(causal, True) is False:
        raise MtpError(
            f"{header.path}: its attention looks ahead ({causal} is false): it reads whole texts "
            "and was not trained to write"
        )


@advised(_AGAIN)
def check_numbers(header: Header, *, uses_rope: bool) -> None:
    """Epsilons that are none, windows without end, rotations wider than what they rotate."""
    for name in _EPSILONS:
        epsilon = header.pairs.get(f"{header.architecture}.attention.{name}", 0.0)
        if not (isinstance(epsilon, (int, float)) and 0 <= epsilon < math.inf):
            raise MtpError(
                f"{header.path}: {header.architecture}.attention.{name}: expected a small positive "
                f"number, found {epsilon}"
            )
    if header.number("attention.sliding_window") > _MOST_WINDOW:
        raise MtpError(
            f"{header.path}: {header.architecture}.attention.sliding_window: expected at most "
            f"{_MOST_WINDOW}, found {header.number('attention.sliding_window')}"
        )
    key = f"{header.architecture}.rope.dimension_count"
    if not uses_rope or key not in header.pairs:
        return
    n_rotated, n_head = header.number("rope.dimension_count"), header.number("attention.head_count")
    width = header.number("attention.key_length")
    if not width and n_head:
        width = header.number("embedding_length") // n_head
    if n_rotated < 1 or n_rotated % 2 or (width and n_rotated > width):
        raise MtpError(
            f"{header.path}: {key}: expected an even number up to the heads' width of {width}, "
            f"found {n_rotated}"
        )


@advised(_AGAIN)
def check_target(header: Header) -> None:
    """That there is one beside the heads."""
    if header.n_target_layers < 1:
        raise MtpError(f"{header.path}: all of its blocks are heads; there is no target")


@advised(_AGAIN)
def check_heads(shards: list[Header]) -> None:
    """Every chained head has the layers of the first, the only one llama.cpp builds at once."""
    n_target, n_nextn = shards[0].n_target_layers, shards[0].number("nextn_predict_layers")
    first = _layers_of(shards, n_target)
    for block in range(n_target + 1, n_target + n_nextn):
        missing = sorted(first - _layers_of(shards, block))
        if missing:
            raise MtpError(f"{shards[0].path}: blk.{block}.{missing[0]} is missing")


def _layers_of(shards: list[Header], block: int) -> set[str]:
    """Names of a block's tensors, but of the embedding and output that heads may share."""
    start = f"blk.{block}."
    names = {n.removeprefix(start) for h in shards for n in h.tensors if n.startswith(start)}
    return {n for n in names if "embed_tokens" not in n and "shared_head" not in n}
