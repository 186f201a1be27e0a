"""DeepSeek-V4-Flash base: four streams a row, keys compressed by layers, one head in its own file.

A row goes through the layers as four streams, which each layer weighs, joins and parts again. The
head reads all four, so its rows are four times as wide, and weighs them at its end with matrices of
its own. llama.cpp has one place for those, the target's, so that a head runs from a file of its own
only. Of the models with DSpark or packed experts nothing is converted here.
"""

from __future__ import annotations

from typing import Any

from mtp_convert.families.common import common_metadata, union
from mtp_convert.families.rope import DEFAULT, YARN
from mtp_convert.families.rules import Config, Dims, Family, Heads, Rule
from mtp_convert.families.transforms import beside, stacked

_SQRT_SOFTPLUS = 4
_SPARSE, _HEAVY = 4, 128  # how many keys a compressed one stands for; 0 for none compressed
_STREAMS = 4


def _ratios(config: Config) -> list[int]:
    """Of each layer of the target, and of the head, which sees a window only."""
    return [*config.per_layer("compress_ratios", config.count("num_hidden_layers")), 0]


def _dims(config: Config, i: int) -> Dims:
    embd, width = config.count("hidden_size"), config.count("head_dim")
    n_head, groups = config.count("num_attention_heads"), config.count("o_groups")
    n_ff, ratio = config.count("moe_intermediate_size"), _ratios(config)[i]
    index_heads, index_dim = config.count("index_n_heads"), config.count("index_head_dim")
    streams = config.count("hc_mult")
    each = 2 if ratio == _SPARSE else 1
    return {
        "vocab": config.count("vocab_size"), "embd": embd, "2embd": 2 * embd,
        "n_head": n_head, "width": width, "q": n_head * width,
        "q_rank": config.count("q_lora_rank"), "o_width": n_head * width // max(groups, 1),
        "o_rank": groups * config.count("o_lora_rank"), "ratio": ratio, "pool": each * width,
        "index_heads": index_heads, "index_dim": index_dim, "index_q": index_heads * index_dim,
        "index_pool": 2 * index_dim, "streams": streams, "all": streams * embd,
        "mix": (2 + streams) * streams, "three": 3, "one": 1,
        "experts": config.count("n_routed_experts"), "used": config.count("num_experts_per_tok"),
        "ff_exp": n_ff, "ff_shexp": n_ff * config.count("n_shared_experts"),
    }  # fmt: skip


def _kinds(config: Config, i: int) -> frozenset[str]:
    ratio = _ratios(config)[i] if i < config.count("num_hidden_layers") else 0
    compressed = {_SPARSE: {"compressed", "sparse"}, _HEAVY: {"compressed"}}.get(ratio, set())
    routed = "hashed" if i < config.count("num_hash_layers") else "scored"
    return frozenset({routed, *compressed})


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    n_layers = config.count("num_hidden_layers") + n_heads
    limits = [config.number("swiglu_limit")] * n_layers
    embd, streams = config.count("hidden_size"), config.count("hc_mult")
    return {
        **common_metadata(config, n_heads),
        "{arch}.embedding_length_out": embd * streams,
        "{arch}.rope.dimension_count": config.count("qk_rope_head_dim"),
        "{arch}.attention.q_lora_rank": config.count("q_lora_rank"),
        "{arch}.attention.sliding_window": config.count("sliding_window"),
        "{arch}.expert_feed_forward_length": config.count("moe_intermediate_size"),
        "{arch}.expert_shared_count": config.count("n_shared_experts"),
        "{arch}.expert_weights_scale": config.number("routed_scaling_factor"),
        "{arch}.expert_weights_norm": True,
        "{arch}.expert_gating_func": _SQRT_SOFTPLUS,
        "{arch}.swiglu_clamp_exp": limits,
        "{arch}.swiglu_clamp_shexp": limits,
        "{arch}.attention.indexer.head_count": config.count("index_n_heads"),
        "{arch}.attention.indexer.key_length": config.count("index_head_dim"),
        "{arch}.attention.indexer.top_k": config.count("index_topk"),
        "{arch}.attention.output_group_count": config.count("o_groups"),
        "{arch}.attention.output_lora_rank": config.count("o_lora_rank"),
        "{arch}.attention.compress_ratios": _ratios(config),
        "{arch}.attention.compress_rope_freq_base": config.number("compress_rope_theta"),
        "{arch}.hyper_connection.count": streams,
        "{arch}.hyper_connection.sinkhorn_iterations": config.count("hc_sinkhorn_iters"),
        "{arch}.hyper_connection.epsilon": config.number("hc_eps"),
        "{arch}.hash_layer_count": config.count("num_hash_layers"),
    }


def _accepts(config: Config) -> str | None:
    dtype = config.find("expert_dtype")
    if dtype not in (None, "fp8", "bf16"):
        return (
            f"experts stored as {str(dtype)[:20]}; this converter reads FP8, BF16, F16 and F32, as "
            "DeepSeek-V4-Flash-Base has them"
        )
    if config.count("head_dim") == config.count("index_head_dim"):
        return "index_head_dim is head_dim: llama.cpp's graph of the head divides by zero"
    if config.count("hc_mult") != _STREAMS:
        return f"hc_mult: llama.cpp's graph has {_STREAMS} streams"
    if not set(_ratios(config)) <= {0, _SPARSE, _HEAVY}:
        return f"compress_ratios: llama.cpp's graph has 0, {_SPARSE} and {_HEAVY} only"
    if config.find("scoring_func", default="sqrtsoftplus") != "sqrtsoftplus":
        return "scoring_func: llama.cpp's graph has sqrtsoftplus only"
    if config.flag("norm_topk_prob") is False:
        return "norm_topk_prob: false: transformers norms the chosen scores all the same"
    return None


_A, _C, _I, _F = "{L}.attn.", "{L}.attn.compressor.", "{L}.attn.indexer.", "{L}.ffn."
_P = _I + "compressor."
_ATTENTION = (
    Rule("blk.{i}.attn_norm.weight", "{L}.attn_norm.weight", "embd"),
    Rule("blk.{i}.attn_sinks.weight", _A + "attn_sink", "n_head"),
    Rule("blk.{i}.attn_q_a.weight", _A + "wq_a.weight", "q_rank,embd"),
    Rule("blk.{i}.attn_q_a_norm.weight", _A + "q_norm.weight", "q_rank"),
    Rule("blk.{i}.attn_q_b.weight", _A + "wq_b.weight", "q,q_rank"),
    Rule("blk.{i}.attn_kv.weight", _A + "wkv.weight", "width,embd"),
    Rule("blk.{i}.attn_kv_a_norm.weight", _A + "kv_norm.weight", "width"),
    Rule("blk.{i}.attn_output_a.weight", _A + "wo_a.weight", "o_rank,o_width"),
    Rule("blk.{i}.attn_output_b.weight", _A + "wo_b.weight", "embd,o_rank"),
    Rule("blk.{i}.attn_compressor_kv.weight", _C + "wkv.weight", "pool,embd", when="compressed"),
    Rule("blk.{i}.attn_compressor_gate.weight", _C + "wgate.weight", "pool,embd",
         when="compressed"),
    Rule("blk.{i}.attn_compressor_ape.weight", _C + "ape", "ratio,pool", when="compressed"),
    Rule("blk.{i}.attn_compressor_norm.weight", _C + "norm.weight", "width", when="compressed"),
    Rule("blk.{i}.indexer.attn_q_b.weight", _I + "wq_b.weight", "index_q,q_rank", when="sparse"),
    Rule("blk.{i}.indexer.proj.weight", _I + "weights_proj.weight", "index_heads,embd",
         when="sparse"),
    Rule("blk.{i}.indexer_compressor_kv.weight", _P + "wkv.weight", "index_pool,embd",
         when="sparse"),
    Rule("blk.{i}.indexer_compressor_gate.weight", _P + "wgate.weight", "index_pool,embd",
         when="sparse"),
    Rule("blk.{i}.indexer_compressor_ape.weight", _P + "ape", "ratio,index_pool", when="sparse"),
    Rule("blk.{i}.indexer_compressor_norm.weight", _P + "norm.weight", "index_dim", when="sparse"),
)  # fmt: skip


def _streams(part: str) -> tuple[Rule, ...]:
    """What joins four streams before a part of a layer, and parts them after it."""
    return tuple(
        Rule(f"blk.{{i}}.hc_{part}_{name}.weight", f"{{L}}.hc_{part}_{name}", shape)
        for name, shape in (("fn", "mix,all"), ("base", "mix"), ("scale", "three"))
    )


def _expert(part: str, of: str, shape: str, shared: str) -> tuple[Rule, ...]:
    to, s = f"blk.{{i}}.ffn_{part}_", _F + "shared_experts."
    return (
        Rule(to + "exps.weight", f"{_F}experts.{{e}}.{of}.weight", f"experts,{shape}", stacked),
        Rule(to + "shexp.weight", f"{s}{of}.weight", shared),
    )


_FEED_FORWARD = (
    Rule("blk.{i}.ffn_norm.weight", "{L}.ffn_norm.weight", "embd"),
    Rule("blk.{i}.ffn_gate_inp.weight", _F + "gate.weight", "experts,embd"),
    Rule("blk.{i}.exp_probs_b.bias", _F + "gate.bias", "experts", when="scored"),
    Rule("blk.{i}.ffn_gate_tid2eid.weight", _F + "gate.tid2eid", "vocab,used", when="hashed",
         whole=True),
    *_expert("gate", "w1", "ff_exp,embd", "ff_shexp,embd"),
    *_expert("down", "w2", "embd,ff_exp", "embd,ff_shexp"),
    *_expert("up", "w3", "ff_exp,embd", "ff_shexp,embd"),
)  # fmt: skip


def _ends(prefix: str) -> tuple[Rule, ...]:
    """What joins the streams behind the last layer."""
    return tuple(
        Rule(f"output_hc_{name}.weight", f"{prefix}hc_head_{name}", shape)
        for name, shape in (("fn", "streams,all"), ("base", "streams"), ("scale", "one"))
    )


DEEPSEEK_V4 = Family(
    name="DeepSeek-V4-Flash",
    classes=("DeepseekV4ForCausalLM",),
    arch="deepseek4",
    rules=(
        Rule("token_embd.weight", "embed.weight", "vocab,embd"),
        Rule("output_norm.weight", "norm.weight", "embd"),
        Rule("output.weight", "lm_head.weight", "vocab,embd"),
        *_ends(""),
    ),
    layer_rules=union(_ATTENTION, _streams("attn"), _streams("ffn"), _FEED_FORWARD),
    layer_prefix="layers.{i}",
    metadata=_metadata,
    ropes=frozenset({DEFAULT, YARN}),
    has_windows=True,
    accepts=_accepts,
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="reused",
        prefix="mtp.{h}",
        count=("num_nextn_predict_layers",),
        rules=(
            Rule("blk.{i}.nextn.eh_proj.weight", ("{L}.e_proj.weight", "{L}.h_proj.weight"),
                 "embd,2embd", beside),
            Rule("blk.{i}.nextn.enorm.weight", "{L}.enorm.weight", "embd"),
            Rule("blk.{i}.nextn.hnorm.weight", "{L}.hnorm.weight", "embd"),
            Rule("blk.{i}.nextn.shared_head_norm.weight", "{L}.norm.weight", "embd"),
        ),
        own=_ends("{L}."),
    ),
    renames=(("head.weight", "lm_head.weight"),),
    pre_tokenizer="deepseek-v3",
)  # fmt: skip

FAMILIES = (DEEPSEEK_V4,)
