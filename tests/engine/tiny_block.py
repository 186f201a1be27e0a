"""Tiny random block drafters for the tiny targets. See `tiny.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.engine import tiny

SIZE, MASK = 8, tiny.N_VOCAB - 2
_N_BLOCKS = 2
_RANK = 12
_KERNEL, _GROUP, _TOP_K, _SELECTOR_RANK = 3, 8, 5, 10


def dflash(
    layers: Sequence[int] = (1, 3),
    *,
    n_draft: int | None = None,
    shares: bool = False,
    is_causal: bool = False,
    window: int = 0,
    is_mrope: bool = False,
    size: int = SIZE,
    seed: int = 31,
) -> tiny.Spec:
    """A DFlash drafter.

    n_draft:  ids that it drafts in; None for all of its target's
    shares:   it has neither embedding nor output
    window:   of its first layer; 0 for none
    is_mrope: it is for a target with four axes of positions
    """
    weights = tiny.Weights(seed)
    if not shares:
        weights.matrix("token_embd", tiny.N_VOCAB, tiny.N_EMBD, gain=float(np.sqrt(tiny.N_EMBD)))
        weights.matrix("output", n_draft or tiny.N_VOCAB, tiny.N_EMBD, gain=3.0)
    weights.norm("output_norm")
    weights.matrix("fc", tiny.N_EMBD, len(layers) * tiny.N_EMBD, gain=2.0)
    weights.norm("enc.output_norm")
    for index in range(_N_BLOCKS):
        weights.attention(f"blk.{index}")
        weights.qk_norms(f"blk.{index}")
        weights.ffn(f"blk.{index}")
    own: dict[str, object] = {"dflash.target_layers": [*layers], "dflash.block_size": size}
    if is_causal:
        own["dflash.attention.causal"] = True
    if window:
        own["dflash.attention.sliding_window"] = window
        own["dflash.attention.sliding_window_pattern"] = [i == 0 for i in range(_N_BLOCKS)]
    if is_mrope:
        own["dflash.rope.dimension_sections"] = [tiny.D_HEAD // 2, 0, 0, 0]
    integers = {}
    if n_draft is not None:
        integers["d2t"] = tiny.trimmed(n_draft).draft_ids.astype(np.int64)
    keys = {
        **tiny.keys_of("dflash", _N_BLOCKS),
        **own,
        "dflash.vocab_size": tiny.N_VOCAB,
        "tokenizer.ggml.mask_token_id": MASK,
        **tiny.VOCABULARY,
    }
    return tiny.Spec("dflash", keys, weights.tensors, integers=integers)


def dspark(
    *,
    samples_anchor: bool = True,
    has_confidence: bool = True,
    n_draft: int | None = None,
    shares: bool = False,
    size: int = SIZE,
) -> tiny.Spec:
    """A DSpark drafter.

    samples_anchor: the newest id's own place drafts, too
    """
    spec = dflash(n_draft=n_draft, shares=shares, size=size, seed=32)
    weights = tiny.Weights(33)
    weights.matrix("markov_w1", tiny.N_VOCAB, _RANK, gain=3.0)
    weights.matrix("markov_w2", n_draft or tiny.N_VOCAB, _RANK, gain=4.0)
    if has_confidence:
        weights.matrix("conf_proj", 1, tiny.N_EMBD + _RANK, gain=2.0)
        weights.vector("conf_proj.bias", 1, -0.5, 0.5)
    spec.tensors.update(weights.tensors)
    spec.keys["dflash.sample_from_anchor"] = samples_anchor
    spec.keys["dflash.has_confidence_head"] = has_confidence
    return spec


def dflash2(*, shares: bool = False, size: int = SIZE) -> tiny.Spec:
    """A DFlash2 drafter: convolutions over the block, and a selector of candidates."""
    spec = dflash(shares=shares, size=size, seed=34)
    weights = tiny.Weights(35)
    n_projected = 2 * _KERNEL * tiny.N_EMBD // _GROUP
    for index in range(_N_BLOCKS):
        for part in ("attn", "ffn"):
            name = f"blk.{index}.{part}_conv"
            weights.matrix(f"{name}_proj", n_projected, tiny.N_EMBD)
            base = weights.drawn((2, _KERNEL, tiny.N_EMBD))
            weights.tensors[f"{name}_base"] = base
    weights.matrix("selector_predecessor", tiny.N_VOCAB, _SELECTOR_RANK, gain=3.0)
    weights.matrix("selector_successor", tiny.N_VOCAB, _SELECTOR_RANK, gain=3.0)
    weights.matrix("selector_hidden", _SELECTOR_RANK, tiny.N_EMBD)
    spec.tensors.update(weights.tensors)
    spec.keys.update({
        "dflash.conv_kernel_size": _KERNEL,
        "dflash.conv_group_size": _GROUP,
        "dflash.selector_rank": _SELECTOR_RANK,
        "dflash.selector_top_k": _TOP_K,
    })  # fmt: skip
    return spec
