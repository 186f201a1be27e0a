"""DeepSeek-V3, R1 and V3.1, V3.2, and GLM-4.7-Flash: latent attention, experts, one reused head.

llama.cpp's own converter drops DeepSeek-V3's heads (`skip_mtp`, a note there says "until we
support MTP for deepseek models"), although the runtime graph of `deepseek2` has had them since
GLM-4.7-Flash. What that graph needs is what is written here: the head's layer as one more block,
its `nextn.*` tensors, and `nextn_predict_layers`.

DeepSeek-V3.2's sparse attention is llama.cpp's `deepseek32`, and our tensors are its converter's.
Where keys are really dropped (more of them than `index_topk`), it drops those that transformers
drops, but for ties: a key that every scoring head's ReLU cuts to zero scores exactly zero, and of
several such keys torch and ggml keep different ones. With the published 64 heads that is rare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mtp_convert.families.common import (
    common_metadata,
    dense_ffn,
    dense_until_first_k,
    experts,
    leading_dense,
    moe_dims,
    moe_metadata,
    nextn,
    norms,
    router,
    target,
    union,
)  # fmt: skip
from mtp_convert.families.glm4_moe import SIGMOID, SPECIAL_TOKENS
from mtp_convert.families.rope import DEFAULT, YARN, full_scope, kind_of
from mtp_convert.families.rules import Config, Dims, Family, Heads, Rule
from mtp_convert.families.transforms import mla_key, mla_value

_A = "{L}.self_attn."


def _dims(config: Config, i: int) -> Dims:
    n_head = config.count("num_attention_heads")
    nope, rope = config.count("qk_nope_head_dim"), config.count("qk_rope_head_dim")
    v_dim, kv_rank = config.count("v_head_dim"), config.count("kv_lora_rank")
    return {
        **moe_dims(config, i),
        "nope": nope, "v_dim": v_dim, "kv_rank": kv_rank, "kv_a": kv_rank + rope,
        "q_rank": config.count("q_lora_rank", default=0), "q": n_head * (nope + rope),
        "o": n_head * v_dim,
    }  # fmt: skip


def _kinds(config: Config, i: int) -> frozenset[str]:
    low_rank = "q_low_rank" if config.find("q_lora_rank") else "q_full"
    return dense_until_first_k(config, i) | {low_rank}


ATTENTION = (
    Rule("blk.{i}.attn_q.weight", _A + "q_proj.weight", "q,embd", when="q_full"),
    Rule("blk.{i}.attn_q_a.weight", _A + "q_a_proj.weight", "q_rank,embd", when="q_low_rank"),
    Rule("blk.{i}.attn_q_a_norm.weight", _A + "q_a_layernorm.weight", "q_rank", when="q_low_rank"),
    Rule("blk.{i}.attn_q_b.weight", _A + "q_b_proj.weight", "q,q_rank", when="q_low_rank"),
    Rule("blk.{i}.attn_kv_a_mqa.weight", _A + "kv_a_proj_with_mqa.weight", "kv_a,embd"),
    Rule("blk.{i}.attn_kv_a_norm.weight", _A + "kv_a_layernorm.weight", "kv_rank"),
    Rule("blk.{i}.attn_k_b.weight", _A + "kv_b_proj.weight", "n_head,kv_rank,nope", mla_key),
    Rule("blk.{i}.attn_v_b.weight", _A + "kv_b_proj.weight", "n_head,v_dim,kv_rank", mla_value),
    Rule("blk.{i}.attn_output.weight", _A + "o_proj.weight", "embd,o"),
)


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    kv_rank, rope = config.count("kv_lora_rank"), config.count("qk_rope_head_dim")
    mscale = full_scope(config).get("mscale_all_dim")
    return {
        **common_metadata(config, n_heads),
        **moe_metadata(config, n_heads),
        "{arch}.attention.head_count_kv": 1,
        "{arch}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", default=1e-6),
        "{arch}.leading_dense_block_count": leading_dense(config) or 0,
        "{arch}.vocab_size": config.count("vocab_size"),
        "{arch}.attention.q_lora_rank": config.whole("q_lora_rank"),
        "{arch}.attention.kv_lora_rank": kv_rank,
        "{arch}.attention.key_length": kv_rank + rope,
        "{arch}.attention.value_length": kv_rank,
        "{arch}.attention.key_length_mla": config.count("qk_nope_head_dim") + rope,
        "{arch}.attention.value_length_mla": config.count("v_head_dim"),
        "{arch}.expert_shared_count": config.count("n_shared_experts", default=0),
        "{arch}.expert_weights_norm": config.flag("norm_topk_prob") or None,
        "{arch}.rope.dimension_count": rope,
        "{arch}.rope.scaling.attn_factor": None,  # the graph has the next instead
        # llama.cpp multiplies by ten again on loading.
        "{arch}.rope.scaling.yarn_log_multiplier": None if mscale is None else 0.1 * mscale,
    }


def _mscales(allowed: Callable[[float], bool], shown: str) -> Callable[[Config], str | None]:
    """Refuses yarn whose attention the graph would scale otherwise.

    It scales all of a query by what transformers has for its rotary part and its softmax together;
    these agree where `mscale` is `mscale_all_dim`, and (V3.2's graph) where it is one.
    """

    def accepts(config: Config) -> str | None:
        scope = full_scope(config)
        if kind_of(scope) != YARN:
            return None
        above, below = scope.get("mscale"), scope.get("mscale_all_dim")
        is_equal = above == below and isinstance(above, int | float) and allowed(above)
        if is_equal and scope.get("attention_factor") is None:
            return None
        return f"rope scaling: yarn without {shown}: llama.cpp's graph has no other"

    return accepts


def _glm_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    # The graph guesses softmax unless told, except at the published layer and vocabulary counts.
    return {"{arch}.expert_gating_func": SIGMOID, **_metadata_without_gating(config, n_heads)}


def _metadata_without_gating(config: Config, n_heads: int) -> dict[str, Any]:
    found = _metadata(config, n_heads)
    if found["{arch}.expert_gating_func"] is None:
        del found["{arch}.expert_gating_func"]
    return found


_I = "{L}.self_attn.indexer."

# V3.2's sparse attention chooses keys with a small scorer of its own.
INDEXER = (
    Rule("blk.{i}.indexer.attn_q_b.weight", _I + "wq_b.weight", "index_q,q_rank"),
    Rule("blk.{i}.indexer.attn_k.weight", _I + "wk.weight", "index_dim,embd"),
    Rule("blk.{i}.indexer.k_norm.weight", _I + "k_norm.weight", "index_dim"),
    Rule("blk.{i}.indexer.k_norm.bias", _I + "k_norm.bias", "index_dim"),
    Rule("blk.{i}.indexer.proj.weight", _I + "weights_proj.weight", "index_heads,embd"),
)


def _sparse_dims(config: Config, i: int) -> Dims:
    n_heads, width = config.count("index_n_heads"), config.count("index_head_dim")
    return {
        **_dims(config, i),
        "index_heads": n_heads,
        "index_dim": width,
        "index_q": n_heads * width,
    }


def _sparse_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    return {
        **_metadata(config, n_heads),
        "{arch}.attention.indexer.head_count": config.count("index_n_heads"),
        "{arch}.attention.indexer.key_length": config.count("index_head_dim"),
        "{arch}.attention.indexer.top_k": config.count("index_topk"),
    }


LAYER = union(
    norms(),
    ATTENTION,
    dense_ffn("dense"),
    experts(),
    router(maybe_bias=True),
    dense_ffn("moe", "_shexp", "mlp.shared_experts", "ff_shexp"),
)

DEEPSEEK_V3 = Family(
    name="DeepSeek-V3",
    classes=("DeepseekV3ForCausalLM",),
    arch="deepseek2",
    rules=target(),
    layer_rules=LAYER,
    metadata=_metadata,
    ropes=frozenset({DEFAULT, YARN}),
    accepts=_mscales(lambda mscale: mscale > 0, "mscale and mscale_all_dim that are equal"),
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="reused",
        prefix="model.layers.{i}",
        count=("num_nextn_predict_layers",),
        rules=nextn(),
    ),
    notes="llama.cpp's own converter drops these heads",
)

DEEPSEEK_V32 = replace(
    DEEPSEEK_V3,
    name="DeepSeek-V3.2",
    classes=("DeepseekV32ForCausalLM",),
    arch="deepseek32",
    layer_rules=union(LAYER, INDEXER),
    metadata=_sparse_metadata,
    accepts=_mscales(lambda mscale: mscale == 1, "mscale and mscale_all_dim of one"),
    dims=_sparse_dims,
    notes="",
)

GLM4_MOE_LITE = replace(
    DEEPSEEK_V3,
    name="GLM-4.7-Flash",
    classes=("Glm4MoeLiteForCausalLM",),
    metadata=_glm_metadata,
    pre_tokenizer="glm4",
    special_tokens=SPECIAL_TOKENS,
    notes="",
)

FAMILIES = (DEEPSEEK_V3, DEEPSEEK_V32, GLM4_MOE_LITE)
