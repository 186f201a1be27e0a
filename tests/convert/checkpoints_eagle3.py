"""Tiny random EAGLE-3 checkpoints, in the layouts that are published, for tiny Llama targets.

specforge     `midlayer`, a flat config; with fewer ids
speculators   `layers.0`, the layer's config nested; norms before the residual and before `fc`
authors       as specforge, by a class of another family, without an embedding of its own
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.convert import checkpoints
from tests.convert.checkpoints import EMBD, FF, N_HEAD, N_KV, N_VOCAB, WIDTH, Tiny, base

N_DRAFT = 200
LAYERS = [1, 2, 3]  # whose input is read, and whose output SpecForge's drafters read
N_LAYERS = 5
NARROW = 48  # a drafter's width is its own


def target() -> Tiny:
    """A Llama of five layers."""
    tiny = Tiny(base("LlamaForCausalLM", "llama", num_hidden_layers=N_LAYERS))
    checkpoints.target(tiny)
    for i in range(N_LAYERS):
        layer = f"model.layers.{i}"
        checkpoints.norms(tiny, layer)
        checkpoints.attention(tiny, layer)
        checkpoints.mlp(tiny, f"{layer}.mlp")
    return tiny


def _layer(tiny: Tiny, prefix: str, embd: int) -> None:
    for name in ("input_layernorm", "hidden_norm", "post_attention_layernorm"):
        tiny.norm(f"{prefix}.{name}.weight", embd)
    for part, n_heads in (("q", N_HEAD), ("k", N_KV), ("v", N_KV)):
        tiny.matrix(f"{prefix}.self_attn.{part}_proj.weight", n_heads * WIDTH, 2 * embd, scale=2.0)
    tiny.matrix(f"{prefix}.self_attn.o_proj.weight", embd, N_HEAD * WIDTH)
    for part, shape in (("gate", (FF, embd)), ("up", (FF, embd)), ("down", (embd, FF))):
        tiny.matrix(f"{prefix}.mlp.{part}_proj.weight", *shape)


def _ids(tiny: Tiny) -> None:
    """`d2t`: how far each drafted id lies from the target's; `t2d`, which nobody needs."""
    ids = np.sort(tiny.random.choice(N_VOCAB, N_DRAFT, replace=False))
    tiny.put("d2t", ids - np.arange(N_DRAFT), "I64")
    tiny.put("t2d", np.isin(np.arange(N_VOCAB), ids).astype(np.int64), "I64")


def _drafter(config: dict[str, Any], prefix: str, embd: int, n_draft: int) -> Tiny:
    tiny = Tiny(config, seed=5)
    tiny.matrix("fc.weight", embd, len(LAYERS) * EMBD)
    _layer(tiny, prefix, embd)
    tiny.norm("norm.weight", embd)
    tiny.matrix("lm_head.weight", n_draft, embd, scale=3.0)
    if n_draft < N_VOCAB:
        _ids(tiny)
    return tiny


def specforge() -> Tiny:
    config = base(
        "LlamaForCausalLMEagle3", "llama", num_hidden_layers=1, head_dim=WIDTH, hidden_size=NARROW,
        target_hidden_size=EMBD, draft_vocab_size=N_DRAFT,
        eagle_config={"eagle_aux_hidden_state_layer_ids": LAYERS},
    )  # fmt: skip
    tiny = _drafter(config, "midlayer", NARROW, N_DRAFT)
    tiny.matrix("embed_tokens.weight", N_VOCAB, NARROW, scale=3.0)
    return tiny


def speculators() -> Tiny:
    layer = base("LlamaForCausalLM", "llama", num_hidden_layers=1, head_dim=WIDTH)
    config = {
        "architectures": ["Eagle3Speculator"], "speculators_model_type": "eagle3",
        "draft_vocab_size": N_DRAFT, "norm_before_residual": True, "norm_before_fc": True,
        "eagle_aux_hidden_state_layer_ids": LAYERS, "transformer_layer_config": layer,
    }  # fmt: skip
    tiny = _drafter(config, "layers.0", EMBD, N_DRAFT)
    tiny.norm("input_norm.weight", len(LAYERS) * EMBD)
    tiny.matrix("embed_tokens.weight", N_VOCAB, EMBD, scale=3.0)
    return tiny


def authors() -> Tiny:
    config = base(
        "LlamaForCausalLM", "llama", num_hidden_layers=1, head_dim=WIDTH,
        draft_vocab_size=N_VOCAB, eagle_aux_hidden_state_layer_ids=LAYERS,
    )  # fmt: skip
    return _drafter(config, "midlayer", EMBD, N_VOCAB)


BUILDERS = {"specforge": specforge, "speculators": speculators, "authors": authors}
