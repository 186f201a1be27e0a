"""Tiny random EAGLE-3 drafters for the tiny targets. See `tiny.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.engine import tiny

N_EMBD = 48  # narrower than the targets: a drafter's width is its own


def drafter(
    layers: Sequence[int] = (1, 2, 3),
    *,
    n_draft: int | None = None,
    shares: bool = False,
    norm_before_residual: bool = False,
    norm_before_fc: bool = False,
    seed: int = 21,
) -> tiny.Spec:
    """An EAGLE-3 drafter.

    n_draft: ids that it drafts in; None for all of its target's
    shares:  it has neither embedding nor output, and is as wide as its target
    """
    n_embd = tiny.N_EMBD if shares else N_EMBD
    weights = tiny.Weights(seed, n_embd)
    if not shares:
        weights.matrix("token_embd", tiny.N_VOCAB, n_embd, gain=float(np.sqrt(n_embd)))
        weights.matrix("output", n_draft or tiny.N_VOCAB, n_embd, gain=3.0)
    weights.norm("output_norm")
    width = len(layers) * tiny.N_EMBD
    weights.matrix("fc", n_embd, width, gain=2.0)
    if norm_before_fc:
        weights.norm("enc.output_norm", width)
    weights.norm("blk.0.attn_norm")
    weights.norm("blk.0.attn_norm_2")
    for part, n_heads in (("q", tiny.N_HEAD), ("k", 2), ("v", 2)):
        weights.matrix(f"blk.0.attn_{part}", n_heads * tiny.D_HEAD, 2 * n_embd, gain=2.0)
    weights.matrix("blk.0.attn_output", n_embd, tiny.N_HEAD * tiny.D_HEAD, gain=2.0)
    weights.ffn("blk.0")
    integers = {}
    if n_draft is not None:
        integers["d2t"] = tiny.trimmed(n_draft).draft_ids.astype(np.int64)
    keys = {
        **tiny.keys_of("eagle3", 1, embedding_length=n_embd),
        "eagle3.target_layers": [*layers],
        "eagle3.target_hidden_size": tiny.N_EMBD,
        "eagle3.norm_before_residual": norm_before_residual,
        "eagle3.norm_before_fc": norm_before_fc,
        "eagle3.vocab_size": tiny.N_VOCAB,
        **tiny.VOCABULARY,
    }
    return tiny.Spec("eagle3", keys, weights.tensors, integers=integers)
