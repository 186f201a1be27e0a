"""Tiny random checkpoints with heads: MiMo-V2, Step-3.5, Nemotron-H."""

from __future__ import annotations

import numpy as np

from tests.convert.checkpoints import (
    EMBD,
    FF,
    N_HEAD,
    N_LAYER,
    N_VOCAB,
    WIDTH,
    Tiny,
    base,
    mlp,
    norms,
    target,
)
from tests.convert.checkpoints_mtp import FF_EXP, N_EXPERT, to_fp8

V_WIDTH = 8


def _mimo_attention(tiny: Tiny, layer: str, n_kv: int, block: int, sink: bool) -> None:
    a = layer + ".self_attn."
    tiny.fp8(a + "q_proj.weight", N_HEAD * WIDTH, EMBD, block)
    tiny.fp8(a + "k_proj.weight", n_kv * WIDTH, EMBD, block)
    tiny.fp8(a + "v_proj.weight", n_kv * V_WIDTH, EMBD, block)
    tiny.matrix(a + "o_proj.weight", EMBD, N_HEAD * V_WIDTH)
    if sink:
        tiny.vector(a + "attention_sink_bias", N_HEAD)


def mimo2() -> Tiny:
    """Flash: separate q, k, v in FP8, heads in a file of their own, unannounced."""
    block = 16
    tiny = Tiny(base(
        "MiMoV2FlashForCausalLM", "mimo_v2_flash", head_dim=WIDTH, v_head_dim=V_WIDTH,
        swa_head_dim=WIDTH, swa_v_head_dim=V_WIDTH, swa_num_attention_heads=N_HEAD,
        swa_num_key_value_heads=4, num_key_value_heads=2, hybrid_layer_pattern=[0, 1, 1],
        moe_layer_freq=[0, 1, 1], sliding_window=16, sliding_window_size=16,
        partial_rotary_factor=0.5, swa_rope_theta=1000.0, attention_value_scale=0.707,
        layernorm_epsilon=1e-5, n_routed_experts=N_EXPERT, num_experts_per_tok=2,
        moe_intermediate_size=FF_EXP, scoring_func="sigmoid", topk_method="noaux_tc",
        norm_topk_prob=True, n_group=1, topk_group=1, n_shared_experts=None,
        add_swa_attention_sink_bias=True, add_full_attention_sink_bias=False,
        quantization_config={"quant_method": "fp8", "fmt": "e4m3",
                             "weight_block_size": [block, block]},
    ))  # fmt: skip
    del tiny.config["rms_norm_eps"]
    target(tiny)
    for i, layer in enumerate(f"model.layers.{i}" for i in range(N_LAYER)):
        norms(tiny, layer)
        _mimo_attention(tiny, layer, 4 if i else 2, block, sink=i > 0)
        if i == 0:
            mlp(tiny, layer + ".mlp")
        else:
            m = layer + ".mlp."
            tiny.matrix(m + "gate.weight", N_EXPERT, EMBD)
            tiny.vector(m + "gate.e_score_correction_bias", N_EXPERT)
            for e in range(N_EXPERT):
                mlp(tiny, f"{m}experts.{e}", FF_EXP)
    for h in range(3):
        layer = f"model.mtp.layers.{h}"
        tiny.matrix(layer + ".eh_proj.weight", EMBD, 2 * EMBD)
        names = ("enorm", "hnorm", "final_layernorm", "input_layernorm", "pre_mlp_layernorm")
        for name in names:
            tiny.norm(f"{layer}.{name}.weight", EMBD)
        _mimo_attention(tiny, layer, 4, block, sink=True)
        mlp(tiny, layer + ".mlp")
    for name in [n for n in tiny.tensors if "proj.weight" in n and ".mlp." in n]:
        to_fp8(tiny, name, block)
    return tiny


def step35() -> Tiny:
    tiny = Tiny(base(
        "Step3p5ForCausalLM", "step3p5", head_dim=WIDTH, num_attention_groups=2,
        attention_other_setting={"num_attention_heads": 6, "num_attention_groups": 2},
        layer_types=["full_attention", "sliding_attention", "full_attention",
                     "sliding_attention", "sliding_attention", "sliding_attention"],
        partial_rotary_factors=[0.5, 1.0, 0.5, 1.0, 1.0, 1.0], rope_theta=[50000.0, 10000.0],
        sliding_window=16, moe_num_experts=N_EXPERT, moe_top_k=2, moe_intermediate_size=FF_EXP,
        share_expert_dim=FF_EXP, moe_layers_enum="1,2", moe_router_activation="sigmoid",
        moe_router_scaling_factor=1.5, norm_expert_weight=True, num_nextn_predict_layers=3,
        use_head_wise_attn_gate=True, swiglu_limits=[0.0] * 6,
    ))  # fmt: skip
    target(tiny, 0.0)
    for i in range(N_LAYER + 3):
        layer = f"model.layers.{i}"
        n_head = 6 if i in (1, 3, 4, 5) else 4
        norms(tiny, layer, 0.0)
        a = layer + ".self_attn."
        for part, n in (("q", n_head), ("k", 2), ("v", 2)):
            tiny.matrix(f"{a}{part}_proj.weight", n * WIDTH, EMBD)
        tiny.matrix(a + "o_proj.weight", EMBD, n_head * WIDTH)
        tiny.matrix(a + "g_proj.weight", n_head, EMBD)
        for part in "qk":
            tiny.norm(f"{a}{part}_norm.weight", WIDTH, 0.0)
        if i in (1, 2):
            m = layer + ".moe."
            tiny.matrix(m + "gate.weight", N_EXPERT, EMBD)
            tiny.vector(m + "router_bias", N_EXPERT)
            tiny.matrix(m + "gate_proj.weight", N_EXPERT, FF_EXP, EMBD)
            tiny.matrix(m + "up_proj.weight", N_EXPERT, FF_EXP, EMBD)
            tiny.matrix(m + "down_proj.weight", N_EXPERT, EMBD, FF_EXP)
            mlp(tiny, layer + ".share_expert", FF_EXP)
        else:
            mlp(tiny, layer + ".mlp", FF)
        if i >= N_LAYER:
            tiny.matrix(layer + ".eh_proj.weight", EMBD, 2 * EMBD)
            for name in ("enorm", "hnorm", "transformer.shared_head.norm"):
                tiny.norm(f"{layer}.{name}.weight", EMBD, 0.0)
            tiny.matrix(layer + ".transformer.shared_head.output.weight", N_VOCAB, EMBD, scale=3.0)
    return tiny


def step37() -> Tiny:
    """Step-3.5's text part under text_config, beside a vision tower; a base for each layer."""
    flat = step35()
    text = {k: v for k, v in flat.config.items() if k != "architectures"}
    text["rope_theta"] = [50000.0 if kind == "full_attention" else 10000.0
                          for kind in text["layer_types"]]  # fmt: skip
    tiny = Tiny({"architectures": ["Step3p7ForConditionalGeneration"], "model_type": "step3p7",
                 "text_config": text, "tie_word_embeddings": False})  # fmt: skip
    for name, values in flat.tensors.items():
        tiny.put(name, values, flat.formats[name])
    tiny.matrix("vision_model.transformer.resblocks.0.attn.in_proj_weight", 24, 8)
    tiny.matrix("vit_large_projector.weight", EMBD, 8)
    return tiny


def _nemotron_attention(tiny: Tiny, mixer: str) -> None:
    tiny.matrix(mixer + "q_proj.weight", N_HEAD * WIDTH, EMBD)
    tiny.matrix(mixer + "k_proj.weight", 2 * WIDTH, EMBD)
    tiny.matrix(mixer + "v_proj.weight", 2 * WIDTH, EMBD)
    tiny.matrix(mixer + "o_proj.weight", EMBD, N_HEAD * WIDTH)


def _nemotron_experts(tiny: Tiny, mixer: str) -> None:
    tiny.matrix(mixer + "gate.weight", N_EXPERT, EMBD)
    tiny.vector(mixer + "gate.e_score_correction_bias", N_EXPERT)
    for name in (*(f"experts.{e}" for e in range(N_EXPERT)), "shared_experts"):
        tiny.matrix(f"{mixer}{name}.up_proj.weight", FF_EXP, EMBD)
        tiny.matrix(f"{mixer}{name}.down_proj.weight", EMBD, FF_EXP)


def nemotron_h() -> Tiny:
    """Mamba-2, attention and expert layers in a pattern; the head is stored as two layers."""
    heads, width, groups, state = 4, 32, 2, 16
    inner, states = heads * width, 2 * groups * state
    tiny = Tiny(base(
        "NemotronHForCausalLM", "nemotron_h", num_hidden_layers=4, head_dim=WIDTH,
        hybrid_override_pattern="ME*E", mamba_num_heads=heads, mamba_head_dim=width,
        n_groups=groups, ssm_state_size=state, conv_kernel=4, expand=2, use_conv_bias=True,
        layer_norm_epsilon=1e-5, norm_eps=1e-5, mlp_hidden_act="relu2", n_routed_experts=N_EXPERT,
        num_experts_per_tok=2, moe_intermediate_size=FF_EXP, n_shared_experts=1,
        moe_shared_expert_intermediate_size=FF_EXP, routed_scaling_factor=1.5,
        norm_topk_prob=True, n_group=1, topk_group=1, num_nextn_predict_layers=1,
    ))  # fmt: skip
    for key in ("rms_norm_eps", "rope_theta", "hidden_act"):
        del tiny.config[key]
    target(tiny, prefix="backbone.")
    tiny.tensors["backbone.embeddings.weight"] = tiny.tensors.pop("backbone.embed_tokens.weight")
    tiny.tensors["backbone.norm_f.weight"] = tiny.tensors.pop("backbone.norm.weight")
    for name in ("embeddings", "norm_f"):
        tiny.formats[f"backbone.{name}.weight"] = "BF16"
    for i, kind in enumerate("ME*E"):
        layer = f"backbone.layers.{i}"
        mixer = layer + ".mixer."
        tiny.norm(layer + ".norm.weight", EMBD)
        if kind == "*":
            _nemotron_attention(tiny, mixer)
        elif kind == "E":
            _nemotron_experts(tiny, mixer)
        else:
            tiny.matrix(mixer + "in_proj.weight", 2 * inner + states + heads, EMBD)
            tiny.matrix(mixer + "conv1d.weight", inner + states, 1, 4)
            tiny.vector(mixer + "conv1d.bias", inner + states)
            tiny.vector(mixer + "dt_bias", heads)
            tiny.put(mixer + "A_log", np.log(np.arange(1, heads + 1, dtype=np.float32)), "F32")
            tiny.vector(mixer + "D", heads, scale=1.0)
            tiny.norm(mixer + "norm.weight", inner)
            tiny.matrix(mixer + "out_proj.weight", EMBD, inner)
    tiny.matrix("mtp.layers.0.eh_proj.weight", EMBD, 2 * EMBD)
    for name in ("0.enorm", "0.hnorm", "0.norm", "1.norm", "1.final_layernorm"):
        tiny.norm(f"mtp.layers.{name}.weight", EMBD)
    _nemotron_attention(tiny, "mtp.layers.0.mixer.")
    _nemotron_experts(tiny, "mtp.layers.1.mixer.")
    return tiny
