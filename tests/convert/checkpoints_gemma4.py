"""Tiny random Gemma 4 checkpoints, shaped like the published sizes, and their assistants.

gemma4       keys that serve as values in full attention (31B), embeddings for each layer
gemma4_e2b   embeddings for each layer, layers that read another's keys, wide MLPs there
gemma4_moe   routed experts beside the dense MLP (26B-A4B)
gemma4_unified  images and sounds projected without towers, around a plain text part (12B)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.convert.checkpoints import EMBD, FF, N_HEAD, N_KV, N_VOCAB, Tiny, base
from tests.convert.checkpoints_mtp import FF_EXP, N_EXPERT

S, F = "sliding_attention", "full_attention"
PER_LAYER = 16
WINDOW = 16
WIDTHS = {S: 16, F: 32}


def _config(layers: Sequence[str], **more: Any) -> dict[str, Any]:
    return base(
        "Gemma4ForCausalLM", "gemma4_text", num_hidden_layers=len(layers), head_dim=WIDTHS[S],
        global_head_dim=WIDTHS[F], num_global_key_value_heads=1, layer_types=list(layers),
        sliding_window=WINDOW, tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh",
        vocab_size_per_layer_input=N_VOCAB, hidden_size_per_layer_input=0,
        num_kv_shared_layers=0, final_logit_softcapping=30.0, attention_k_eq_v=True,
        enable_moe_block=False, use_double_wide_mlp=False, moe_intermediate_size=None,
        rope_parameters={
            S: {"rope_type": "default", "rope_theta": 10000.0},
            F: {"rope_type": "proportional", "partial_rotary_factor": 0.25,
                "rope_theta": 1000000.0},
        },
    ) | more  # fmt: skip


def _attention(tiny: Tiny, a: str, kind: str, config: dict[str, Any], has_keys: bool) -> None:
    """Attention is not scaled by the width, so the norms of q and k must be small, as trained ones
    are: or half precision keys decide the softmax.
    """
    width, embd = WIDTHS[kind], int(config["hidden_size"])
    are_values = config["attention_k_eq_v"] and kind == F
    n_kv = config["num_global_key_value_heads"] if are_values else N_KV
    tiny.matrix(a + "q_proj.weight", N_HEAD * width, embd)
    tiny.matrix(a + "o_proj.weight", embd, N_HEAD * width)
    tiny.norm(a + "q_norm.weight", width, 0.4)
    if has_keys:
        tiny.matrix(a + "k_proj.weight", n_kv * width, embd)
        if not are_values:
            tiny.matrix(a + "v_proj.weight", n_kv * width, embd)
        tiny.norm(a + "k_norm.weight", width, 0.4)


def _experts(tiny: Tiny, layer: str) -> None:
    tiny.matrix(layer + ".router.proj.weight", N_EXPERT, EMBD, scale=8.0)
    tiny.norm(layer + ".router.scale", EMBD)
    tiny.norm(layer + ".router.per_expert_scale", N_EXPERT)
    tiny.matrix(layer + ".experts.gate_up_proj", N_EXPERT, 2 * FF_EXP, EMBD)
    tiny.matrix(layer + ".experts.down_proj", N_EXPERT, EMBD, FF_EXP)
    for name in ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1",
                 "post_feedforward_layernorm_2"):  # fmt: skip
        tiny.norm(f"{layer}.{name}.weight", EMBD)


def _layers(tiny: Tiny, config: dict[str, Any], has_keys: bool = True) -> None:
    kinds, embd = config["layer_types"], int(config["hidden_size"])
    per_layer = int(config["hidden_size_per_layer_input"])
    first_shared = len(kinds) - config["num_kv_shared_layers"] if has_keys else 0
    tiny.matrix("model.embed_tokens.weight", N_VOCAB, embd, scale=3.0)
    tiny.tensors["model.embed_tokens.weight"][259:264] = 0
    tiny.norm("model.norm.weight", embd)
    for i, kind in enumerate(kinds):
        layer = f"model.layers.{i}"
        _attention(tiny, layer + ".self_attn.", kind, config, i < first_shared)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            tiny.norm(f"{layer}.{name}_layernorm.weight", embd)
        tiny.norm(layer + ".layer_scalar", 1)
        ff = 2 * FF if config["use_double_wide_mlp"] and i >= first_shared else FF
        for part, shape in (("gate", (ff, embd)), ("up", (ff, embd)), ("down", (embd, ff))):
            tiny.matrix(f"{layer}.mlp.{part}_proj.weight", *shape)
        if config["enable_moe_block"]:
            _experts(tiny, layer)
        if per_layer:
            tiny.matrix(layer + ".per_layer_input_gate.weight", per_layer, embd)
            tiny.matrix(layer + ".per_layer_projection.weight", embd, per_layer)
            tiny.norm(layer + ".post_per_layer_input_norm.weight", embd)
    if per_layer:
        tiny.matrix("model.embed_tokens_per_layer.weight", N_VOCAB, per_layer * len(kinds))
        tiny.matrix("model.per_layer_model_projection.weight", per_layer * len(kinds), embd)
        tiny.norm("model.per_layer_projection_norm.weight", per_layer)


def _target(layers: Sequence[str], **more: Any) -> Tiny:
    tiny = Tiny(_config(layers, **more), byte_fallback=True)
    _layers(tiny, tiny.config)
    return tiny


def gemma4() -> Tiny:
    return _target([S, F, S, F], hidden_size_per_layer_input=PER_LAYER)


def gemma4_e2b() -> Tiny:
    return _target(
        [S, S, F, S, S, F], hidden_size_per_layer_input=PER_LAYER, attention_k_eq_v=False,
        num_global_key_value_heads=None, num_kv_shared_layers=3, use_double_wide_mlp=True,
    )  # fmt: skip


def gemma4_moe() -> Tiny:
    return _target(
        [S, F, S, F], enable_moe_block=True, num_experts=N_EXPERT, top_k_experts=2,
        moe_intermediate_size=FF_EXP,
    )  # fmt: skip


def gemma4_unified() -> Tiny:
    plain = _target([S, F, S, F])
    text = {**plain.config, "model_type": "gemma4_unified_text"}
    for key in ("architectures", "vocab_size_per_layer_input", "hidden_size_per_layer_input",
                "enable_moe_block"):  # fmt: skip
        del text[key]
    config = {
        "architectures": ["Gemma4UnifiedForConditionalGeneration"], "model_type": "gemma4_unified",
        "tie_word_embeddings": True, "text_config": text,
    }  # fmt: skip
    tiny = Tiny(config, byte_fallback=True)
    for name, values in plain.tensors.items():
        tiny.put(name.replace("model.", "model.language_model.", 1), values)
    tiny.matrix("model.embed_vision.patch_dense.weight", EMBD, 12)
    tiny.matrix("model.embed_vision.multimodal_embedder.embedding_projection.weight", EMBD, EMBD)
    tiny.matrix("model.embed_audio.embedding_projection.weight", EMBD, 8)
    return tiny


def gemma4_assistant(**more: Any) -> Tiny:
    """No keys or values of its own; wraps a text config, beside the width of its target.

    more: keys of the text config that differ
    """
    layers = [S, S, F]
    text = _config(layers, hidden_size=32, vocab_size_per_layer_input=0,
                   num_kv_shared_layers=len(layers), final_logit_softcapping=None)  # fmt: skip
    text |= more
    del text["architectures"]
    tiny = Tiny(
        {
            "architectures": ["Gemma4AssistantForCausalLM"],
            "model_type": "gemma4_assistant",
            "backbone_hidden_size": EMBD,
            "text_config": text,
            "tie_word_embeddings": True,
        }
    )
    tiny.byte_fallback = True
    _layers(tiny, text, has_keys=False)
    tiny.matrix("pre_projection.weight", 32, 2 * EMBD)
    tiny.matrix("post_projection.weight", EMBD, 32)
    return tiny


def gemma4_e2b_assistant() -> Tiny:
    return gemma4_assistant(attention_k_eq_v=False, num_global_key_value_heads=None)


def agreeing() -> tuple[Tiny, Tiny]:
    """A target and an assistant that often agrees with it.

    Both take the next token mostly from the newest one: the layers add little, and the assistant's
    table and projections compute what the target's embedding and final norm do.
    """
    target, assistant = gemma4_moe(), gemma4_assistant()
    random = np.random.default_rng(3)
    basis = np.linalg.qr(random.standard_normal((EMBD, 32)))[0]
    codes = random.standard_normal((N_VOCAB, 32)) / 4
    codes[259:264] = 0
    signs = random.choice([-1.0, 1.0], EMBD)
    halves = np.concatenate([basis.T, np.zeros((32, EMBD))], axis=1)
    for tiny, name, values in (
        (target, "model.embed_tokens.weight", codes @ basis.T),
        (target, "model.norm.weight", signs),
        (assistant, "model.embed_tokens.weight", codes @ basis.T @ np.diag(signs) @ basis),
        (assistant, "model.norm.weight", np.ones(32)),
        (assistant, "pre_projection.weight", halves),
    ):
        tiny.put(name, values.astype(np.float32))
    for tiny in (target, assistant):
        for name in tiny.tensors:
            if "post_attention_layernorm" in name or "post_feedforward_layernorm.w" in name:
                tiny.tensors[name] *= AGREEING
    return target, assistant


AGREEING = 0.25  # what the layers' contributions are scaled with
