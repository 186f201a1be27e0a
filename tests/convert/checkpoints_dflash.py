"""Tiny random DFlash and DSpark checkpoints, in the layouts that are published.

authors       DFlash: a flat config with `dflash_config`, neither embedding nor output
windows       DFlash under `model.`: sliding attention with sinks, half of each head turned, causal
two           DFlash 2: convolutions and a selector of candidates
nested        DFlash of speculators: the layers' config nested, fewer ids
deepspec      DSpark: a flat config, an output that is the embedding, a confidence head
speculators   DSpark: the layers' config nested, fewer ids
pairs         DSpark: rotary dimensions in pairs, an embedding and another output
gemma4        DSpark with Gemma 4's layers: keys for values, four norms, a quarter turned
muse          DFlash with Muse Glimmer's names and no vocabulary of its own
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.convert import checkpoints
from tests.convert.checkpoints import EMBD, N_HEAD, N_VOCAB, WIDTH, Tiny, base

N_DRAFT, N_BLOCK, MASK = 200, 5, 300
LAYERS = [1, 2, 3]  # whose input is read
N_LAYERS = 2
RANK, N_TAPS, GROUP, TOP_K = 32, 3, 16, 4
OWN = {"mask_token_id": MASK, "target_layer_ids": [layer - 1 for layer in LAYERS]}


def _config(architecture: str, **more: Any) -> dict[str, Any]:
    sizes = {"num_hidden_layers": N_LAYERS, "head_dim": WIDTH, "block_size": N_BLOCK}
    return base(architecture, "qwen3", **sizes, **more)


def _drafter(config: dict[str, Any], prefix: str = "") -> Tiny:
    tiny = Tiny(config, seed=7)
    tiny.matrix(prefix + "fc.weight", EMBD, len(LAYERS) * EMBD)
    tiny.norm(prefix + "hidden_norm.weight", EMBD)
    tiny.norm(prefix + "norm.weight", EMBD)
    for i in range(N_LAYERS):
        layer = f"{prefix}layers.{i}"
        checkpoints.norms(tiny, layer)
        checkpoints.attention(tiny, layer, qk_norm=1.0)
        checkpoints.mlp(tiny, f"{layer}.mlp")
    return tiny


def _embedding(tiny: Tiny) -> None:
    tiny.matrix("embed_tokens.weight", N_VOCAB, EMBD, scale=3.0)


def _fewer_ids(tiny: Tiny) -> None:
    ids = np.sort(tiny.random.choice(N_VOCAB, N_DRAFT, replace=False))
    tiny.put("d2t", ids - np.arange(N_DRAFT), "I64")
    tiny.put("t2d", np.isin(np.arange(N_VOCAB), ids).astype(np.int64), "I64")
    tiny.matrix("lm_head.weight", N_DRAFT, EMBD, scale=3.0)


def _markov(tiny: Tiny, n_ids: int) -> None:
    tiny.matrix("markov_head.markov_w1.weight", N_VOCAB, RANK)
    tiny.matrix("markov_head.markov_w2.weight", n_ids, RANK, scale=3.0)
    tiny.matrix("confidence_head.proj.weight", 1, EMBD + RANK)


def authors() -> Tiny:
    return _drafter(_config("DFlashDraftModel", dflash_config=OWN))


def windows() -> Tiny:
    own = {**OWN, "use_swa": True, "swa_window_size": 16, "attention_value_scale": 0.5,
           "causal": True}  # fmt: skip
    config = _config("DFlashDraftModel", dflash_config=own, partial_rotary_factor=0.5)
    tiny = _drafter(config, prefix="model.")
    for i in range(N_LAYERS):
        tiny.vector(f"model.layers.{i}.self_attn.attention_sink_bias", N_HEAD)
    return tiny


def two() -> Tiny:
    own = {**OWN, "block_size": N_BLOCK, "conv_kernel_size": N_TAPS, "conv_group_size": GROUP,
           "selector_rank": RANK, "selector_top_k": TOP_K, "final_logit_softcapping": 30.0,
           "input_embedding_scale": 2.0, "output_multiplier": 0.5}  # fmt: skip
    config = _config("DFlash2DraftModel", dflash_config=own, sliding_window=16,
                     use_sliding_window=True)  # fmt: skip
    config["layer_types"] = ["sliding_attention", "full_attention"]
    tiny = _drafter(config)
    n_projected = 2 * N_TAPS * (EMBD // GROUP)
    for i in range(N_LAYERS):
        for part in ("attention", "mlp"):
            tiny.matrix(f"layers.{i}.{part}_conv.base_kernel", 2, N_TAPS, EMBD)
            tiny.matrix(f"layers.{i}.{part}_conv.kernel_projection.weight", n_projected, EMBD)
    for part in ("predecessor", "successor"):
        tiny.matrix(f"candidate_selector.{part}_codebook", N_VOCAB, RANK)
    tiny.matrix("candidate_selector.hidden_projection.weight", RANK, EMBD)
    return tiny


def _nested(architecture: str, **more: Any) -> dict[str, Any]:
    layer = base("Qwen3ForCausalLM", "qwen3", num_hidden_layers=N_LAYERS, head_dim=WIDTH)
    return {
        "architectures": [architecture], "transformer_layer_config": layer, "block_size": N_BLOCK,
        "aux_hidden_state_layer_ids": LAYERS, "mask_token_id": MASK, "draft_vocab_size": N_DRAFT,
        "tie_word_embeddings": False, **more,
    }  # fmt: skip


def nested() -> Tiny:
    tiny = _drafter(_nested("DFlashDraftModel", speculators_model_type="dflash"))
    _embedding(tiny)
    _fewer_ids(tiny)
    return tiny


def deepspec() -> Tiny:
    config = _config("Qwen3DSparkModel", **OWN, markov_rank=RANK, tie_word_embeddings=True)
    config["markov_head_type"] = "vanilla"
    tiny = _drafter(config)
    _embedding(tiny)
    tiny.put("lm_head.weight", tiny.tensors["embed_tokens.weight"])
    _markov(tiny, N_VOCAB)
    tiny.vector("confidence_head.proj.bias", 1)
    return tiny


def speculators() -> Tiny:
    more = {"speculators_model_type": "dspark", "markov_rank": RANK}
    tiny = _drafter(_nested("DSparkSpeculator", **more))
    _embedding(tiny)
    _fewer_ids(tiny)
    _markov(tiny, N_DRAFT)
    return tiny


def pairs() -> Tiny:
    config = _config("LingDSparkModel", dflash_config=OWN, markov_rank=RANK)
    config["rope_is_neox_style"] = False
    tiny = _drafter(config)
    _embedding(tiny)
    tiny.matrix("lm_head.weight", N_VOCAB, EMBD, scale=3.0)
    _markov(tiny, N_VOCAB)
    tiny.drop("confidence_head.")
    return tiny


def gemma4() -> Tiny:
    """Full attention has half as many key heads, of twice the width."""
    config = _config("Gemma4DSparkModel", **OWN, markov_rank=RANK, attention_k_eq_v=True)
    config |= {"global_head_dim": 2 * WIDTH, "num_global_key_value_heads": 1,
               "layer_types": ["full_attention"] * N_LAYERS, "hidden_act": None,
               "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 16}  # fmt: skip
    tiny = _drafter(config)
    for i in range(N_LAYERS):
        layer = f"layers.{i}"
        for part in ("pre", "post"):
            tiny.norm(f"{layer}.{part}_feedforward_layernorm.weight", EMBD)
        tiny.vector(f"{layer}.layer_scalar", 1)
        tiny.drop(f"{layer}.self_attn.")
        tiny.matrix(f"{layer}.self_attn.q_proj.weight", N_HEAD * 2 * WIDTH, EMBD)
        tiny.matrix(f"{layer}.self_attn.k_proj.weight", 2 * WIDTH, EMBD)
        tiny.matrix(f"{layer}.self_attn.o_proj.weight", EMBD, N_HEAD * 2 * WIDTH)
        for part in "qk":
            tiny.norm(f"{layer}.self_attn.{part}_norm.weight", 2 * WIDTH)
    _embedding(tiny)
    tiny.matrix("lm_head.weight", N_VOCAB, EMBD, scale=3.0)
    _markov(tiny, N_VOCAB)
    tiny.put("confidence_proj.weight", tiny.tensors["confidence_head.proj.weight"])
    tiny.drop("confidence_head.")
    return tiny


def muse() -> Tiny:
    config = _config("MuseGlimmerAssistantModel", **OWN, sliding_window=16)
    config["layer_types"] = ["sliding_attention"] * N_LAYERS
    del config["vocab_size"]
    tiny = _drafter(config)
    for old, new in (("fc", "encoder.fc"), ("hidden_norm", "encoder.output_norm_enc")):
        tiny.put(f"{new}.weight", tiny.tensors[f"{old}.weight"])
        tiny.drop(f"{old}.")
    return tiny


BUILDERS = {
    "authors": authors, "windows": windows, "two": two, "nested": nested, "deepspec": deepspec,
    "speculators": speculators, "pairs": pairs, "gemma4": gemma4, "muse": muse,
}  # fmt: skip
