"""Tiny random checkpoints with heads: Ling-3.0, North-Mini-Code, newer models of old families."""

from __future__ import annotations

import numpy as np

from tests.convert.checkpoints import (
    EMBD,
    FF,
    N_HEAD,
    N_VOCAB,
    WIDTH,
    Tiny,
    attention,
    base,
    mlp,
    norms,
    target,
)
from tests.convert.checkpoints_more import mimo2, nemotron_h
from tests.convert.checkpoints_mtp import (
    FF_EXP,
    HYBRID,
    KV_RANK,
    MROPE,
    N_EXPERT,
    NOPE,
    Q_RANK,
    ROPE,
    V_DIM,
    beside_a_tower,
    qwen_hybrid,
)

DELTA_WIDTH, KERNEL = 32, 4


def _delta_attention(tiny: Tiny, a: str) -> None:
    inner = N_HEAD * DELTA_WIDTH
    for part in "qkv":
        tiny.matrix(f"{a}{part}_proj.weight", inner, EMBD)
        tiny.matrix(f"{a}{part}_conv1d.weight", inner, 1, KERNEL)
    tiny.matrix(a + "f_proj.weight", inner, EMBD)
    tiny.matrix(a + "g_proj.weight", inner, EMBD)
    tiny.matrix(a + "b_proj.weight", N_HEAD, EMBD)
    tiny.put(a + "A_log", np.log(tiny.random.uniform(1, 8, N_HEAD)).astype(np.float32), "F32")
    tiny.vector(a + "dt_bias", inner)
    tiny.norm(a + "o_norm.weight", DELTA_WIDTH)
    tiny.matrix(a + "o_proj.weight", EMBD, inner)


def _gated_latent_attention(tiny: Tiny, a: str, q_rank: int | None) -> None:
    n_q = N_HEAD * (NOPE + ROPE)
    if q_rank is None:
        tiny.matrix(a + "q_proj.weight", n_q, EMBD)
    else:
        tiny.matrix(a + "q_a_proj.weight", q_rank, EMBD)
        tiny.norm(a + "q_a_layernorm.weight", q_rank)
        tiny.matrix(a + "q_b_proj.weight", n_q, q_rank)
    tiny.matrix(a + "kv_a_proj_with_mqa.weight", KV_RANK + ROPE, EMBD)
    tiny.norm(a + "kv_a_layernorm.weight", KV_RANK)
    tiny.matrix(a + "kv_b_proj.weight", N_HEAD * (NOPE + V_DIM), KV_RANK)
    tiny.matrix(a + "g_proj.weight", N_HEAD, EMBD)
    tiny.matrix(a + "dense.weight", EMBD, N_HEAD * V_DIM)


def ling3(q_rank: int | None = None) -> Tiny:
    """Two groups of two layers, limits in the last of them and in the head."""
    n_layers, limits = 4, [0.0, 0.0, None, 0.5, 0.5]
    tiny = Tiny(base(
        "BailingMoeV3ForCausalLM", "bailing_hybrid", num_hidden_layers=n_layers,
        num_key_value_heads=N_HEAD, head_dim=DELTA_WIDTH, layer_group_size=2,
        short_conv_kernel_size=KERNEL, no_kda_lora=True, kda_safe_gate=True,
        kda_lower_bound=-5.0, pad_token_id=None,
        gated_attention_proj_granularity_type="head_wise", q_lora_rank=q_rank,
        kv_lora_rank=KV_RANK, qk_nope_head_dim=NOPE, qk_rope_head_dim=ROPE, v_head_dim=V_DIM,
        first_k_dense_replace=1, num_experts=N_EXPERT, num_experts_per_tok=2, n_group=2,
        topk_group=1, num_shared_experts=1, moe_intermediate_size=FF_EXP,
        moe_shared_expert_intermediate_size=FF_EXP, norm_topk_prob=True,
        routed_scaling_factor=1.5, score_function="sigmoid", expert_swiglu_limit_list=limits,
        share_expert_swiglu_limit_list=limits, num_nextn_predict_layers=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ))  # fmt: skip
    target(tiny)
    tiny.put("model.word_embeddings.weight", tiny.tensors["model.embed_tokens.weight"])
    tiny.drop("model.embed_tokens.")
    for i in range(n_layers + 1):
        layer = f"model.layers.{i}"
        norms(tiny, layer)
        if i in (0, 2):
            _delta_attention(tiny, layer + ".attention.")
        else:
            _gated_latent_attention(tiny, layer + ".attention.", q_rank)
        if i == 0:
            mlp(tiny, layer + ".mlp")
            continue
        tiny.matrix(layer + ".mlp.gate.weight", N_EXPERT, EMBD)
        tiny.vector(layer + ".mlp.gate.expert_bias", N_EXPERT)
        for name in (*(f"experts.{e}" for e in range(N_EXPERT)), "shared_experts"):
            mlp(tiny, f"{layer}.mlp.{name}", FF_EXP)
    layer = f"model.layers.{n_layers}"
    tiny.matrix(layer + ".eh_proj.weight", EMBD, 2 * EMBD)
    for name in ("enorm", "hnorm", "final_layernorm"):
        tiny.norm(f"{layer}.{name}.weight", EMBD)
    return tiny


def ling3_tiny() -> Tiny:
    """Queries of low rank, as the smaller model has them."""
    return ling3(Q_RANK)


def north(rms: bool = False, n_shared: int = 0) -> Tiny:
    """A dense layer in front, sliding and full attention by turns; a head as others trained one.

    rms: norms without a mean
    """
    tiny = Tiny(base(
        "Cohere2MoeForCausalLM", "cohere2_moe", num_hidden_layers=4, head_dim=WIDTH,
        intermediate_size=FF_EXP, prefix_dense_intermediate_size=FF, layer_norm_eps=1e-5,
        logit_scale=0.5, sliding_window=16, first_k_dense_replace=1, num_experts=N_EXPERT,
        layer_types=["full_attention", *["sliding_attention"] * 2, "full_attention"],
        num_experts_per_tok=2, num_shared_experts=n_shared, norm_topk_prob=False,
        expert_selection_fn="sigmoid", shared_expert_combination_strategy="average",
        prefix_dense_sliding_window_pattern=1, tie_word_embeddings=True,
        num_nextn_predict_layers=1,
    ))  # fmt: skip
    if not rms:
        del tiny.config["rms_norm_eps"]
    target(tiny, tied=True)
    for i in range(5):
        layer = f"model.layers.{i}"
        tiny.norm(layer + ".input_layernorm.weight", EMBD)
        attention(tiny, layer)
        if i == 0:
            mlp(tiny, layer + ".mlp")
            continue
        tiny.matrix(layer + ".mlp.gate.weight", N_EXPERT, EMBD)
        for name in [f"experts.{e}" for e in range(N_EXPERT)] + ["shared_experts"] * bool(n_shared):
            n_ff = FF_EXP * (n_shared if name == "shared_experts" else 1)
            mlp(tiny, f"{layer}.mlp.{name}", n_ff)
    tiny.matrix("model.layers.4.eh_proj.weight", EMBD, 2 * EMBD)
    for name in ("enorm", "hnorm", "shared_head.norm"):
        tiny.norm(f"model.layers.4.{name}.weight", EMBD)
    return tiny


def north_shared() -> Tiny:
    return north(rms=True, n_shared=2)


def qwen38(tower: bool = True) -> Tiny:
    """Three value heads for each key head and an output of its own, as the 27B has them."""
    tiny = Tiny(base("Qwen3_5ForCausalLM", "qwen3_5_text", **HYBRID, **MROPE,
                      mtp_num_hidden_layers=1, mtp_use_dedicated_embeddings=False))  # fmt: skip
    tiny.config["linear_num_value_heads"] = 6
    target(tiny, 0.0)
    qwen_hybrid(tiny, False, "")
    return beside_a_tower(tiny) if tower else tiny


def mimo25() -> Tiny:
    """q, k and v fused as four ranks held them, blocks of 128, towers for pictures and sounds."""
    block, n_ranks = 128, 4
    flat = mimo2()
    tiny = Tiny({**flat.config, "architectures": ["MiMoV2ForCausalLM"], "model_type": "mimo_v2",
                 "attention_projection_layout": "fused_qkv", "attention_value_scale": 0.612,
                 "quantization_config": {**flat.config["quantization_config"],
                                         "weight_block_size": [block, block]}})  # fmt: skip
    for name, values in flat.tensors.items():
        if flat.formats[name] != "F8_E4M3":
            if not name.endswith("_scale_inv"):
                tiny.put(name, values, flat.formats[name])
        elif name.endswith("q_proj.weight"):
            k, v = (flat.tensors[name.replace("q_proj", f"{part}_proj")] for part in "kv")
            fused = name.replace("q_proj", "qkv_proj")
            tiny.fp8(fused, len(values) + len(k) + len(v), EMBD, block)
            scales = (0.5 + tiny.random.random((n_ranks, 1))) / np.sqrt(EMBD)
            tiny.put(fused + "_scale_inv", scales.astype(np.float32), "F32")
        elif not name.endswith(("k_proj.weight", "v_proj.weight")):
            tiny.fp8(name, values.shape[0], values.shape[1], block)
    tiny.matrix("visual.blocks.0.attn.qkv.weight", 24, 8)
    tiny.matrix("audio_encoder.projection.mlp.0.weight", 8, 8)
    tiny.matrix("speech_embeddings.0.weight", 8, 8)
    return tiny


def nemotron35() -> Tiny:
    """Layers in words, as Lightning lists them, those of the head too."""
    tiny = nemotron_h()
    del tiny.config["hybrid_override_pattern"]
    tiny.config |= {"layers_block_type": ["mamba", "moe", "attention", "moe"],
                    "mtp_layers_block_type": ["attention", "moe"]}  # fmt: skip
    return tiny


def _fp8(tiny: Tiny, name: str, n_rows: int, n_cols: int) -> None:
    """In blocks of 32; the scales are called as DeepSeek-V4's are."""
    tiny.fp8(name + ".weight", n_rows, n_cols, 32)
    scales = tiny.tensors.pop(name + ".weight_scale_inv")
    del tiny.formats[name + ".weight_scale_inv"]
    tiny.put(name + ".scale", scales, "F32")


def _streams(tiny: Tiny, name: str, n_mixed: int, n_scales: int) -> None:
    tiny.put(name + "_fn", tiny.random.standard_normal((n_mixed, 4 * EMBD)) / 16, "F32")
    tiny.put(name + "_base", 0.2 * tiny.random.standard_normal(n_mixed), "F32")
    tiny.put(name + "_scale", tiny.random.uniform(0.5, 1.5, n_scales), "F32")


def _compressor(tiny: Tiny, name: str, n: int, width: int, ratio: int) -> None:
    tiny.matrix(name + "wkv.weight", n * width, EMBD)
    tiny.matrix(name + "wgate.weight", n * width, EMBD)
    tiny.put(name + "ape", 0.5 * tiny.random.standard_normal((ratio, n * width)), "F32")
    tiny.norm(name + "norm.weight", width)


def _v4_layer(tiny: Tiny, layer: str, ratio: int, hashed: bool) -> None:
    a, f, width, rank, o_rank, groups = layer + ".attn.", layer + ".ffn.", 128, 48, 32, 2
    for name in ("attn_norm", "ffn_norm"):
        tiny.norm(f"{layer}.{name}.weight", EMBD)
    for part in ("attn", "ffn"):
        _streams(tiny, f"{layer}.hc_{part}", 24, 3)
    tiny.put(a + "attn_sink", tiny.random.standard_normal(N_HEAD), "F32")
    _fp8(tiny, a + "wq_a", rank, EMBD)
    tiny.norm(a + "q_norm.weight", rank)
    _fp8(tiny, a + "wq_b", N_HEAD * width, rank)
    _fp8(tiny, a + "wkv", width, EMBD)
    tiny.norm(a + "kv_norm.weight", width)
    _fp8(tiny, a + "wo_a", groups * o_rank, N_HEAD * width // groups)
    _fp8(tiny, a + "wo_b", EMBD, groups * o_rank)
    if ratio:
        _compressor(tiny, a + "compressor.", 2 if ratio == 4 else 1, width, ratio)
    if ratio == 4:
        _fp8(tiny, a + "indexer.wq_b", 2 * 64, rank)
        tiny.matrix(a + "indexer.weights_proj.weight", 2, EMBD)
        _compressor(tiny, a + "indexer.compressor.", 2, 64, ratio)
    tiny.matrix(f + "gate.weight", N_EXPERT, EMBD)
    if hashed:
        chosen = [tiny.random.permutation(N_EXPERT)[:2] for _ in range(N_VOCAB)]
        tiny.put(f + "gate.tid2eid", np.array(chosen), "I64")
    else:
        tiny.put(f + "gate.bias", 0.2 * tiny.random.standard_normal(N_EXPERT), "F32")
    for name in (*(f"experts.{e}" for e in range(N_EXPERT)), "shared_experts"):
        _fp8(tiny, f"{f}{name}.w1", FF_EXP, EMBD)
        _fp8(tiny, f"{f}{name}.w2", EMBD, FF_EXP)
        _fp8(tiny, f"{f}{name}.w3", FF_EXP, EMBD)


def deepseek4(heads: bool = False) -> Tiny:
    """The base in FP8: a window, sparse and heavily compressed keys, an expert for each id."""
    ratios = [0, 4, 128, 4]
    tiny = Tiny(base(
        "DeepseekV4ForCausalLM", "deepseek_v4", num_hidden_layers=4, num_key_value_heads=1,
        head_dim=128, qk_rope_head_dim=16, q_lora_rank=48, o_groups=2, o_lora_rank=32,
        compress_ratios=[*ratios, 0], compress_rope_theta=160000.0, sliding_window=16,
        index_n_heads=2, index_head_dim=64, index_topk=64, hc_mult=4, hc_sinkhorn_iters=20,
        hc_eps=1e-6, num_hash_layers=1, n_routed_experts=N_EXPERT, num_experts_per_tok=2,
        n_shared_experts=1, moe_intermediate_size=FF_EXP, scoring_func="sqrtsoftplus",
        norm_topk_prob=True, routed_scaling_factor=1.5, swiglu_limit=1.0,
        rope_scaling={"type": "yarn", "factor": 4, "original_max_position_embeddings": 128,
                      "beta_fast": 32, "beta_slow": 1},
        quantization_config={"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [32, 32]},
        num_nextn_predict_layers=int(heads),
    ))  # fmt: skip
    del tiny.config["intermediate_size"]
    tiny.matrix("embed.weight", N_VOCAB, EMBD, scale=3.0)
    tiny.norm("norm.weight", EMBD)
    tiny.matrix("head.weight", N_VOCAB, EMBD, scale=3.0)
    tiny.tensors["head.weight"][259:264] = 0  # the tokens that would end an answer
    _streams(tiny, "hc_head", 4, 1)
    for i, ratio in enumerate(ratios):
        _v4_layer(tiny, f"layers.{i}", ratio, hashed=i == 0)
    if heads:
        _v4_layer(tiny, "mtp.0", 0, hashed=False)
        _streams(tiny, "mtp.0.hc_head", 4, 1)
        for name in ("enorm", "hnorm", "norm"):
            tiny.norm(f"mtp.0.{name}.weight", EMBD)
        for name in ("e_proj", "h_proj"):
            _fp8(tiny, "mtp.0." + name, EMBD, EMBD)
    return tiny


def deepseek4_with_head() -> Tiny:
    return deepseek4(heads=True)
