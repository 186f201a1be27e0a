"""Ling-3.0: Kimi's delta attention and gated latent attention, experts, one reused head.

Of each group of layers the last attends to all keys, as does the head; the others keep a state.
The limits of the last layers' activations are in config.json only; makers' code for transformers
passes over them, vLLM, SGLang and llama.cpp do not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mtp_convert.families.common import (
    common_metadata,
    dense_ffn,
    experts,
    leading_dense,
    moe_metadata,
    nextn,
    norms,
    router,
    target,
    union,
)  # fmt: skip
from mtp_convert.families.deepseek import ATTENTION, DEEPSEEK_V3
from mtp_convert.families.glm4_moe import SIGMOID
from mtp_convert.families.rope import DEFAULT
from mtp_convert.families.rules import Config, Dims, Family, Heads, Rule
from mtp_convert.families.transforms import plain_exp, row_slice, shaped, squeezed, then


def _attends(config: Config, i: int) -> bool:
    """Whether layer i attends to all keys: the last of its group, those behind, and heads."""
    n_layers, each = config.count("num_hidden_layers"), config.count("layer_group_size")
    return (i + 1) % max(each, 1) == 0 or i >= n_layers // max(each, 1) * each


def _width(config: Config) -> int:
    """Of a head of the delta attention; where transformers saves one, `head_dim` is another's."""
    return config.count("linear_head_dim", "head_dim")


def _dims(config: Config, i: int) -> Dims:
    n_shared = config.count("num_shared_experts", default=1)
    width = _width(config)
    return {
        **DEEPSEEK_V3.dims(config, i),
        "ff_shexp": n_shared * config.count("moe_shared_expert_intermediate_size"),
        "inner": config.count("num_attention_heads") * width,
        "width": width, "kernel": config.count("short_conv_kernel_size"), "one": 1,
    }  # fmt: skip


def _kinds(config: Config, i: int) -> frozenset[str]:
    kinds = DEEPSEEK_V3.kinds(config, i)
    if _attends(config, i):
        return kinds | {"latent"}
    return kinds - {"q_full", "q_low_rank"} | {"delta"}


def _limits(config: Config, key: str, n_layers: int) -> list[float] | None:
    """Of the activations in each layer's experts; zero stands for none."""
    limits = config.find(key)
    if limits is None:
        return None
    found = [0.0 if limit is None else float(limit) for limit in limits][:n_layers]
    return found + [0.0] * (n_layers - len(found))


def _renamed(config: Config) -> dict[str, Any]:
    """What transformers saves under other names than the published ones."""
    return {
        "{arch}.context_length": config.whole("max_position_embeddings", "model_max_length"),
        "{arch}.expert_used_count": config.whole("num_experts_per_tok", "num_experts_per_token"),
        "{arch}.expert_group_count": config.whole("n_group", "num_expert_group"),
        "{arch}.expert_weights_norm": config.flag("norm_topk_prob", "moe_renormalize") is not False,
    }


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    n_layers = config.count("num_hidden_layers") + n_heads
    kv_rank, rope = config.count("kv_lora_rank"), config.count("qk_rope_head_dim")
    return {
        **common_metadata(config, n_heads),
        **moe_metadata(config, n_heads),
        **_renamed(config),
        "{arch}.attention.head_count_kv": [int(_attends(config, i)) for i in range(n_layers)],
        "{arch}.vocab_size": config.count("vocab_size"),
        "{arch}.ssm.conv_kernel": config.count("short_conv_kernel_size"),
        "{arch}.kda.head_dim": _width(config),
        "{arch}.kda.safe_gate": True,
        "{arch}.kda.gate_lower_bound": config.number("kda_lower_bound", default=-5.0),
        "{arch}.attention.q_lora_rank": config.whole("q_lora_rank"),
        "{arch}.attention.kv_lora_rank": kv_rank,
        "{arch}.attention.key_length": kv_rank + rope,
        "{arch}.attention.value_length": _width(config),
        "{arch}.attention.key_length_mla": config.count("qk_nope_head_dim") + rope,
        "{arch}.attention.value_length_mla": config.count("v_head_dim"),
        "{arch}.rope.dimension_count": rope,
        "{arch}.expert_shared_feed_forward_length": config.count(
            "moe_shared_expert_intermediate_size"
        ),
        "{arch}.expert_shared_count": config.count("num_shared_experts", default=1),
        "{arch}.expert_gating_func": SIGMOID,
        "{arch}.leading_dense_block_count": leading_dense(config) or 0,
        "{arch}.swiglu_clamp_exp": _limits(config, "expert_swiglu_limit_list", n_layers),
        "{arch}.swiglu_clamp_shexp": _limits(config, "share_expert_swiglu_limit_list", n_layers),
    }


def _accepts(config: Config) -> str | None:
    """Variants that the code has names for and llama.cpp's graph does not compute."""
    if not config.flag("no_kda_lora"):
        return "no_kda_lora: delta attention with projections of low rank, which llama.cpp lacks"
    if config.flag("kda_safe_gate") is False:
        return "kda_safe_gate: false: a gate without a lower bound, which llama.cpp lacks"
    if config.number("kda_lower_bound", default=-5.0) >= 0:
        return "kda_lower_bound: expected a number below zero"
    if config.find("gated_attention_proj_granularity_type") != "head_wise":
        return "gated_attention_proj_granularity_type: llama.cpp has gates for whole heads only"
    if config.flag("mtp_use_kda"):
        return "mtp_use_kda: a head with delta attention, for which llama.cpp has no graph"
    return None


_A = "{L}.self_attn."


def _convolution(part: str, begin: str) -> tuple[Rule, ...]:
    """Of q, k or v: a tensor of its own, or rows of one of all three, as transformers saves it."""
    to, shape = f"blk.{{i}}.ssm_conv1d_{part}.weight", "one,inner,one,kernel"
    how = shaped(*shape.split(","))
    rows = then(squeezed, row_slice(begin, f"{begin}+inner" if begin else "inner"))
    return (
        Rule(to, f"{_A}{part}_conv1d.weight", shape, how, "delta"),
        Rule(to, _A + "conv1d.weight", shape, then(rows, how), "delta"),
    )


_DELTA = (
    *(
        Rule(f"blk.{{i}}.attn_{part}.weight", f"{_A}{part}_proj.weight", "inner,embd", when="delta")
        for part in "qkv"
    ),
    *_convolution("q", ""),
    *_convolution("k", "inner"),
    *_convolution("v", "inner+inner"),
    Rule("blk.{i}.ssm_f_a.weight", _A + "f_proj.weight", "inner,embd", when="delta"),
    Rule("blk.{i}.ssm_g_a.weight", _A + "g_proj.weight", "inner,embd", when="delta"),
    Rule("blk.{i}.ssm_beta.weight", _A + "b_proj.weight", "n_head,embd", when="delta"),
    Rule("blk.{i}.ssm_a", _A + "A_log", "n_head,one", then(plain_exp, shaped("n_head", "one")),
         "delta"),
    Rule("blk.{i}.ssm_dt.bias", _A + "dt_bias", "inner", when="delta"),
    Rule("blk.{i}.ssm_norm.weight", _A + "o_norm.weight", "width", when="delta"),
    Rule("blk.{i}.attn_output.weight", _A + "o_proj.weight", "embd,inner", when="delta"),
)  # fmt: skip
_LATENT = (
    *(replace(rule, when=rule.when or "latent") for rule in ATTENTION),
    Rule("blk.{i}.attn_gate.weight", _A + "g_proj.weight", "n_head,embd", when="latent"),
)
_NEXTN = (
    *(rule for rule in nextn() if not rule.maybe),
    Rule("blk.{i}.layer_output_norm.weight", "{L}.final_layernorm.weight", "embd"),
)

LING3 = Family(
    name="Ling-3.0",
    classes=("BailingMoeV3ForCausalLM", "BailingHybridForCausalLM"),
    arch="bailingmoe3",
    rules=target(),
    layer_rules=union(
        norms(),
        _DELTA,
        _LATENT,
        dense_ffn("dense"),
        experts(),
        router(),
        dense_ffn("moe", "_shexp", "mlp.shared_experts", "ff_shexp"),
    ),
    metadata=_metadata,
    ropes=frozenset({DEFAULT}),
    accepts=_accepts,
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="reused",
        prefix="model.layers.{i}",
        count=("num_nextn_predict_layers",),
        rules=_NEXTN,
        memory="hybrid",
    ),
    # Published names, as transformers 5 renames them.
    renames=(
        ("word_embeddings.", "embed_tokens."),
        (".attention.", ".self_attn."),
        (".self_attn.dense.", ".self_attn.o_proj."),
        (".mlp.gate.expert_bias", ".mlp.gate.e_score_correction_bias"),
        (".forget_gate.", "."),
    ),
    pre_tokenizer="bailingmoe2",
)

FAMILIES = (LING3,)
