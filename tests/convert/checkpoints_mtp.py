"""Tiny random checkpoints with heads: Qwen, GLM and DeepSeek. Knows nothing of the converter."""

from __future__ import annotations

import numpy as np

from tests.convert.checkpoints import (
    EMBD,
    N_HEAD,
    N_LAYER,
    WIDTH,
    Tiny,
    attention,
    base,
    mlp,
    norms,
    target,
)  # fmt: skip

N_EXPERT, FF_EXP = 4, 32
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 32,
    "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
}  # fmt: skip


def _linear_attention(tiny: Tiny, layer: str, fused: bool = False) -> None:
    a = layer + ".linear_attn."
    k_heads, v_heads, width = 2, int(tiny.config["linear_num_value_heads"]), 32
    key, value = k_heads * width, v_heads * width
    if fused:
        tiny.matrix(a + "in_proj_qkvz.weight", 2 * key + 2 * value, EMBD)
        tiny.matrix(a + "in_proj_ba.weight", 2 * v_heads, EMBD)
    else:
        tiny.matrix(a + "in_proj_qkv.weight", 2 * key + value, EMBD)
        tiny.matrix(a + "in_proj_z.weight", value, EMBD)
        tiny.matrix(a + "in_proj_a.weight", v_heads, EMBD)
        tiny.matrix(a + "in_proj_b.weight", v_heads, EMBD)
    tiny.matrix(a + "conv1d.weight", 2 * key + value, 1, 4)
    tiny.put(a + "A_log", np.log(tiny.random.uniform(1, 8, v_heads)).astype(np.float32), "F32")
    tiny.vector(a + "dt_bias", v_heads)
    tiny.norm(a + "norm.weight", width)
    tiny.matrix(a + "out_proj.weight", EMBD, value)


def _qwen_experts(tiny: Tiny, layer: str, fused: bool) -> None:
    m = layer + ".mlp."
    tiny.matrix(m + "gate.weight", N_EXPERT, EMBD)
    if fused:
        tiny.matrix(m + "experts.gate_up_proj", N_EXPERT, 2 * FF_EXP, EMBD)
        tiny.matrix(m + "experts.down_proj", N_EXPERT, EMBD, FF_EXP)
    else:
        for e in range(N_EXPERT):
            mlp(tiny, f"{m}experts.{e}", FF_EXP)
    mlp(tiny, m + "shared_expert", FF_EXP)
    tiny.matrix(m + "shared_expert_gate.weight", 1, EMBD)


def _qwen_head(tiny: Tiny) -> None:
    tiny.matrix("mtp.fc.weight", EMBD, 2 * EMBD)
    for name in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"):
        tiny.norm(f"mtp.{name}.weight", EMBD, 0.0)


def qwen_hybrid(tiny: Tiny, fused_linear: bool, experts: str) -> None:
    layers = [f"model.layers.{i}" for i in range(4)] + ["mtp.layers.0"]
    for i, layer in enumerate(layers):
        norms(tiny, layer, 0.0)
        if i in (3, 4):
            attention(tiny, layer, qk_norm=0.0, gate=2)
        else:
            _linear_attention(tiny, layer, fused_linear)
        if experts:
            _qwen_experts(tiny, layer, experts == "fused")
        else:
            mlp(tiny, layer + ".mlp")
    _qwen_head(tiny)


HYBRID = {
    **LINEAR, "num_hidden_layers": 4, "head_dim": WIDTH, "full_attention_interval": 4,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"], "attn_output_gate": True,
}  # fmt: skip
MROPE = {
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1], "mrope_interleaved": True,
    },
}  # fmt: skip
_MOE = {
    "num_experts": N_EXPERT, "num_experts_per_tok": 2, "moe_intermediate_size": FF_EXP,
    "shared_expert_intermediate_size": FF_EXP, "norm_topk_prob": True,
}  # fmt: skip


def qwen35() -> Tiny:
    tiny = Tiny(base("Qwen3_5ForCausalLM", "qwen3_5_text", **HYBRID, **MROPE,
                      mtp_num_hidden_layers=1, tie_word_embeddings=True))  # fmt: skip
    target(tiny, 0.0, tied=True)
    qwen_hybrid(tiny, False, "")
    return tiny


def qwen35_vision() -> Tiny:
    return beside_a_tower(qwen35())


def beside_a_tower(flat: Tiny) -> Tiny:
    """The text part lies under text_config and model.language_model, beside a vision tower."""
    text = {k: v for k, v in flat.config.items() if k != "architectures"}
    tied = text["tie_word_embeddings"]
    tiny = Tiny({"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5",
                 "text_config": text, "tie_word_embeddings": tied})  # fmt: skip
    for name, values in flat.tensors.items():
        new = name.replace("model.", "model.language_model.", 1)
        tiny.put(new, values, flat.formats[name])
    tiny.matrix("model.visual.blocks.0.attn.qkv.weight", 24, 8)
    return tiny


def qwen35moe() -> Tiny:
    tiny = Tiny(base("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", **HYBRID, **MROPE, **_MOE,
                      mtp_num_hidden_layers=1))  # fmt: skip
    target(tiny, 0.0)
    qwen_hybrid(tiny, False, "fused")
    return tiny


def qwen3next() -> Tiny:
    """Its config announces no heads; they are inferred from the tensors."""
    tiny = Tiny(
        base(
            "Qwen3NextForCausalLM",
            "qwen3_next",
            **HYBRID,
            **_MOE,
            partial_rotary_factor=0.25,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        )
    )
    tiny.config["partial_rotary_factor"] = 0.5
    target(tiny, 0.0)
    qwen_hybrid(tiny, True, "single")
    return tiny


def _deepseek_experts(tiny: Tiny, layer: str) -> None:
    m = layer + ".mlp."
    tiny.matrix(m + "gate.weight", N_EXPERT, EMBD)
    tiny.vector(m + "gate.e_score_correction_bias", N_EXPERT)
    for e in range(N_EXPERT):
        mlp(tiny, f"{m}experts.{e}", FF_EXP)
    mlp(tiny, m + "shared_experts", FF_EXP)


def _deepseek_head(tiny: Tiny, layer: str, shared: bool = True) -> None:
    tiny.matrix(layer + ".eh_proj.weight", EMBD, 2 * EMBD)
    for name in ("enorm", "hnorm", "shared_head.norm"):
        tiny.norm(f"{layer}.{name}.weight", EMBD)
    if shared:  # published checkpoints repeat the target's matrices here
        tiny.put(layer + ".embed_tokens.weight", tiny.tensors["model.embed_tokens.weight"])
        tiny.put(layer + ".shared_head.head.weight", tiny.tensors["lm_head.weight"])


_DEEPSEEK_MOE = {
    "n_routed_experts": N_EXPERT, "num_experts_per_tok": 2, "moe_intermediate_size": FF_EXP,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
    "norm_topk_prob": True, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 1,
}  # fmt: skip


def glm4moe() -> Tiny:
    tiny = Tiny(
        base(
            "Glm4MoeForCausalLM",
            "glm4_moe",
            **_DEEPSEEK_MOE,
            head_dim=WIDTH,
            partial_rotary_factor=0.5,
            attention_bias=True,
            use_qk_norm=True,
        )
    )
    target(tiny)
    for i in range(N_LAYER + 1):
        layer = f"model.layers.{i}"
        norms(tiny, layer)
        attention(tiny, layer, bias=True, qk_norm=1.0)
        if i == 0:
            mlp(tiny, layer + ".mlp")
        else:
            _deepseek_experts(tiny, layer)
    _deepseek_head(tiny, f"model.layers.{N_LAYER}")
    return tiny


def glm4v() -> Tiny:
    """The same under text_config and model.language_model, beside a vision tower."""
    flat = glm4moe()
    text = {k: v for k, v in flat.config.items() if k != "architectures"}
    del text["use_qk_norm"]
    text["rope_scaling"] = {"type": "default", "mrope_section": [2, 1, 1]}
    tiny = Tiny({"architectures": ["Glm4vMoeForConditionalGeneration"], "model_type": "glm4v_moe",
                 "text_config": text, "tie_word_embeddings": False})  # fmt: skip
    for name, values in flat.tensors.items():
        if "q_norm" not in name and "k_norm" not in name:
            new = name.replace("model.", "model.language_model.", 1)
            tiny.put(new, values, flat.formats[name])
    tiny.matrix("model.visual.blocks.0.attn.qkv.weight", 24, 8)
    return tiny


def hy3() -> Tiny:
    tiny = Tiny(
        base(
            "HYV3ForCausalLM",
            "hy_v3",
            head_dim=WIDTH,
            num_experts=N_EXPERT,
            num_experts_per_tok=2,
            num_shared_experts=1,
            moe_intermediate_size=FF_EXP,
            first_k_dense_replace=1,
            router_scaling_factor=1.5,
            route_norm=True,
            num_nextn_predict_layers=1,
        )
    )
    target(tiny)
    for i in range(N_LAYER + 1):
        layer, m = f"model.layers.{i}", f"model.layers.{i}.mlp."
        norms(tiny, layer)
        attention(tiny, layer, qk_norm=1.0)
        if i == 0:
            mlp(tiny, layer + ".mlp")
            continue
        tiny.matrix(m + "router.gate.weight", N_EXPERT, EMBD)
        tiny.vector(m + "expert_bias", N_EXPERT)
        for e in range(N_EXPERT):
            mlp(tiny, f"{m}experts.{e}", FF_EXP)
        mlp(tiny, m + "shared_mlp", FF_EXP)
    layer = f"model.layers.{N_LAYER}"
    tiny.matrix(layer + ".eh_proj.weight", EMBD, 2 * EMBD)
    for name in ("enorm", "hnorm", "final_layernorm"):
        tiny.norm(f"{layer}.{name}.weight", EMBD)
    return tiny


# NOPE and ranks are multiples of 32: others stay F16 in a Q8_0 file, which llama.cpp may round
# otherwise in company.
NOPE, ROPE, V_DIM, KV_RANK, Q_RANK = 32, 16, 16, 32, 64


def _mla(tiny: Tiny, layer: str, block: int | None) -> None:
    a = layer + ".self_attn."

    def matrix(name: str, n_rows: int, n_cols: int) -> None:
        if block:
            tiny.fp8(f"{a}{name}.weight", n_rows, n_cols, block)
        else:
            tiny.matrix(f"{a}{name}.weight", n_rows, n_cols)

    matrix("q_a_proj", Q_RANK, EMBD)
    tiny.norm(a + "q_a_layernorm.weight", Q_RANK)
    matrix("q_b_proj", N_HEAD * (NOPE + ROPE), Q_RANK)
    matrix("kv_a_proj_with_mqa", KV_RANK + ROPE, EMBD)
    tiny.norm(a + "kv_a_layernorm.weight", KV_RANK)
    matrix("kv_b_proj", N_HEAD * (NOPE + V_DIM), KV_RANK)
    matrix("o_proj", EMBD, N_HEAD * V_DIM)


def to_fp8(tiny: Tiny, name: str, block: int) -> None:
    n_rows, n_cols = tiny.tensors[name].shape
    tiny.fp8(name, n_rows, n_cols, block)


def _deepseek(architecture: str, model_type: str, block: int | None) -> Tiny:
    tiny = Tiny(
        base(
            architecture,
            model_type,
            **_DEEPSEEK_MOE,
            q_lora_rank=Q_RANK,
            kv_lora_rank=KV_RANK,
            qk_nope_head_dim=NOPE,
            qk_rope_head_dim=ROPE,
            v_head_dim=V_DIM,
            scoring_func="sigmoid",
            topk_method="noaux_tc",
        )
    )
    tiny.config["num_key_value_heads"] = N_HEAD
    target(tiny)
    for i in range(N_LAYER + 1):
        layer = f"model.layers.{i}"
        norms(tiny, layer)
        _mla(tiny, layer, block)
        if i == 0:
            mlp(tiny, layer + ".mlp")
        else:
            _deepseek_experts(tiny, layer)
    _deepseek_head(tiny, f"model.layers.{N_LAYER}")
    if block:
        tiny.config["quantization_config"] = {
            "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
            "weight_block_size": [block, block],
        }  # fmt: skip
        for name in [n for n in tiny.tensors if "proj.weight" in n and ".mlp." in n]:
            to_fp8(tiny, name, block)
    return tiny


def deepseek3() -> Tiny:
    """FP8 with blocks of 32: the last block of most matrices is a partial one."""
    tiny = _deepseek("DeepseekV3ForCausalLM", "deepseek_v3", 32)
    tiny.config["rope_scaling"] = {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128,
        "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
    }  # fmt: skip
    return tiny


def deepseek32(n_index: int = 2) -> Tiny:
    """The same, with the scorer of the sparse attention, of n_index heads, in every layer."""
    tiny = _deepseek("DeepseekV32ForCausalLM", "deepseek_v32", 32)
    tiny.config |= {"index_n_heads": n_index, "index_head_dim": 64, "index_topk": 16}
    for i in range(N_LAYER + 1):
        _indexer(tiny, i, n_index)
    return tiny


def _indexer(tiny: Tiny, i: int, n_index: int) -> None:
    x = f"model.layers.{i}.self_attn.indexer."
    tiny.fp8(x + "wq_b.weight", n_index * 64, Q_RANK, 32)
    tiny.fp8(x + "wk.weight", 64, EMBD, 32)
    tiny.norm(x + "k_norm.weight", 64)
    tiny.vector(x + "k_norm.bias", 64)
    tiny.matrix(x + "weights_proj.weight", n_index, EMBD)


def glm5(n_index: int = 2) -> Tiny:
    """The last of three layers takes the keys that the one before it chose."""
    tiny = _deepseek("GlmMoeDsaForCausalLM", "glm_moe_dsa", 32)
    tiny.config |= {"index_n_heads": n_index, "index_head_dim": 64, "index_topk": 16,
                    "indexer_types": ["full", "full", "shared"]}  # fmt: skip
    for i in (0, 1, N_LAYER):
        _indexer(tiny, i, n_index)
    return tiny


def glm4moelite() -> Tiny:
    tiny = _deepseek("Glm4MoeLiteForCausalLM", "glm4_moe_lite", None)
    del tiny.config["scoring_func"]
    return tiny
