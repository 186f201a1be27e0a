"""A plain numpy forward of Meta's multi-token prediction model, from its own tensors.

Written after Gloeckle et al. 2024 (arXiv:2404.19737, section 2) and the published llama/model.py:
the shared target is every layer but the last; that one and the extra heads each read its rows,
and all share norm and output. Whole matrices, float32, no cache. Knows nothing of GGUF or of the
converter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.convert.checkpoints import Tiny
from tests.convert.forward import Floats, attend, rope_pairs, sigmoid, split

Rotate = Callable[[Floats, Floats], Floats]


def norm(tiny: Tiny, x: Floats, name: str) -> Floats:
    scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + tiny.config["norm_eps"])
    return np.asarray(x / scale * tiny.tensors[name + ".weight"], np.float32)


def layer(tiny: Tiny, name: str, x: Floats, rotate: Rotate = rope_pairs) -> Floats:
    """One transformer layer over all rows: (n, dim) -> (n, dim)."""

    def project(y: Floats, part: str) -> Floats:
        return np.asarray(y @ tiny.tensors[f"{name}.{part}.weight"].T)

    n_head, n_kv = tiny.config["n_heads"], tiny.config["n_kv_heads"]
    width = tiny.config["dim"] // n_head
    frequencies = tiny.config["rope_theta"] ** (-np.arange(0, width, 2) / width)
    y = norm(tiny, x, name + ".attention_norm")
    q = rotate(split(project(y, "attention.wq"), n_head), frequencies)
    k = rotate(split(project(y, "attention.wk"), n_kv), frequencies)
    out = attend(q, k, split(project(y, "attention.wv"), n_kv), width**-0.5)
    x = x + project(out, "attention.wo")
    y = norm(tiny, x, name + ".ffn_norm")
    gate = project(y, "feed_forward.w1")
    return x + project(gate * sigmoid(gate) * project(y, "feed_forward.w3"), "feed_forward.w2")


def target_rows(tiny: Tiny, tokens: list[int], rotate: Rotate = rope_pairs) -> Floats:
    """(n, dim): what the last layer and the extra heads read."""
    n_layers = tiny.config["n_layers"] - tiny.config["n_future_tokens"] + 1
    x: Floats = tiny.tensors["tok_embeddings.weight"][tokens]
    for i in range(n_layers - 1):
        x = layer(tiny, f"layers.{i}", x, rotate)
    return x


def head_logits(tiny: Tiny, name: str, rows: Floats, rotate: Rotate = rope_pairs) -> Floats:
    """(n, n_vocab) of one head, the last layer included."""
    out = norm(tiny, layer(tiny, name, rows, rotate), "norm")
    return np.asarray(out @ tiny.tensors["output.weight"].T)
