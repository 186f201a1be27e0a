"""Tiny heads in a file as llama.cpp's converter writes it, and their target without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.engine import tiny

SHARED = ("token_embd.weight", "output.weight", "output_norm.weight")


def parts(spec: tiny.Spec) -> tuple[tiny.Spec, tiny.Spec]:
    """The target alone, and its heads as llama.cpp writes them."""
    arch = spec.architecture
    n_blocks, n_heads = (
        spec.keys[f"{arch}.{key}"] for key in ("block_count", "nextn_predict_layers")
    )
    own = tuple(f"blk.{i}." for i in range(n_blocks - n_heads, n_blocks))
    heads = {k: v for k, v in spec.tensors.items() if k.startswith(own) or k in SHARED}
    rest = {k: v for k, v in spec.tensors.items() if not k.startswith(own)}
    keys = dict(spec.keys)
    del keys[f"{arch}.nextn_predict_layers"]
    keys[f"{arch}.block_count"] = n_blocks - n_heads
    for key, value in keys.items():
        if isinstance(value, list | np.ndarray) and len(value) == n_blocks:
            keys[key] = value[: n_blocks - n_heads]
    return replace(spec, keys=keys, tensors=rest), replace(spec, tensors=heads)
