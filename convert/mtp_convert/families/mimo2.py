"""MiMo-V2 (Flash, 2.5): sliding and full attention mixed, experts, three chained heads, FP8.

The heads lie under `model.mtp.layers.`; config.json does not announce them, and Flash keeps them
in a file of their own. llama.cpp's head graph needs q, k and v fused, which Flash ships apart.
2.5 ships them fused in the order of its tensor-parallel ranks, each rank with scale blocks of its
own; both are put right here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtp_cli.errors import MtpError
from mtp_convert.families.common import (
    attention,
    common_metadata,
    dense_ffn,
    experts,
    mlp_kinds,
    moe_dims,
    router,
    target_with_output,
    union,
)  # fmt: skip
from mtp_convert.families.rope import DEFAULT
from mtp_convert.families.rules import OTHER_TOWERS, Config, Dims, Family, Heads, Rule
from mtp_convert.families.transforms import fused_rows, picked
from mtp_convert.tensors.fp8 import Fp8
from mtp_convert.tensors.sources import Source

_A = "{L}.self_attn."
_SIGMOID = 2


def _pattern(config: Config) -> list[int]:
    """1 for each sliding layer of the target; transformers saves words in place of numbers."""
    n_layers = config.count("num_hidden_layers")
    if config.find("hybrid_layer_pattern") is not None:
        return config.per_layer("hybrid_layer_pattern", n_layers)
    return [int(t == "sliding_attention") for t in config.per_layer("layer_types", n_layers)]


def _window(config: Config) -> int:
    """Keys that a sliding layer sees, the newest row's own with them.

    The makers' own code (SGLang's `mimo_v2_flash.py`) and transformers show a row as many rows
    before it as `sliding_window_size` says; llama.cpp and `sliding_window`, as transformers saves
    it, count the row too. The published `sliding_window` is one short of that.
    """
    size = config.find("sliding_window_size")
    return (
        config.count("sliding_window") if size is None else 1 + config.count("sliding_window_size")
    )


def _is_sliding(config: Config, i: int) -> bool:
    pattern = _pattern(config)
    return i >= len(pattern) or pattern[i] == 1  # the heads slide


def _n_kv(config: Config, i: int) -> int:
    n_kv = config.count("num_key_value_heads")
    if not _is_sliding(config, i):
        return n_kv
    return config.count("swa_num_key_value_heads", default=2 * n_kv)  # as transformers has it


def _dims(config: Config, i: int) -> Dims:
    n_head, n_kv = config.count("num_attention_heads"), _n_kv(config, i)
    width, v_width = config.count("head_dim"), config.count("v_head_dim")
    q, k, v = n_head * width, n_kv * width, n_kv * v_width
    return {
        **moe_dims(config, i), "n_kv": n_kv, "q": q, "k": k, "v": v, "o": n_head * v_width,
        "qkv": q + k + v,
    }  # fmt: skip


def _kinds(config: Config, i: int) -> frozenset[str]:
    n_layer = config.count("num_hidden_layers")
    if i >= n_layer:
        return frozenset({"dense", "head", "fused"})
    listed = mlp_kinds(config) if config.find("moe_layer_freq") is None else None
    is_moe = bool((listed or config.per_layer("moe_layer_freq", n_layer))[i])
    return frozenset({"moe" if is_moe else "dense", "target"})


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    pattern = [*_pattern(config), *[1] * n_heads]
    n_layer = config.count("num_hidden_layers") + n_heads
    partial = config.rope_value("partial_rotary_factor", default=1.0) or 1.0
    value_scale = config.find("attention_value_scale")
    return {
        **common_metadata(config, n_heads),
        "{arch}.attention.head_count_kv": [_n_kv(config, i) for i in range(n_layer)],
        "{arch}.attention.sliding_window": _window(config),
        "{arch}.attention.sliding_window_pattern": pattern,
        "{arch}.attention.value_length": config.count("v_head_dim"),
        "{arch}.expert_count": config.count("n_routed_experts"),
        "{arch}.expert_gating_func": _SIGMOID,  # which transformers does not save
        "{arch}.expert_feed_forward_length": config.count("moe_intermediate_size"),
        "{arch}.rope.dimension_count": int(config.count("head_dim") * partial),
        "{arch}.attention.layer_norm_rms_epsilon": config.number(
            "layernorm_epsilon", "rms_norm_eps", default=1e-5
        ),
        "{arch}.attention.value_scale": None if value_scale is None else float(value_scale),
    }


def _accepts(config: Config) -> str | None:
    for key in ("head_dim", "num_attention_heads", "v_head_dim"):
        if config.find(f"swa_{key}", default=config.find(key)) != config.find(key):
            return f"swa_{key} differs from {key}; llama.cpp needs them equal"
    if (config.find("quantization_config") or {}).get("store_dtype") == "mxfp4":
        return "experts stored as MXFP4; this converter reads FP8, BF16, F16 and F32"
    return None


def fused_by_rank(sources: Sequence[Source], dims: Dims) -> Source:
    """A fused qkv in rank order -> all q, all k, all v.

    Rank r holds its share of q, k and v below one another. In FP8, each rank's rows start a new
    block of scales, so the number of scale rows tells how many ranks there were.
    """
    source, n_rows = sources[0], dims["qkv"]
    if not isinstance(source, Fp8):
        return source
    if source.shape[0] != n_rows:
        raise MtpError(f"expected {n_rows} rows, found {source.shape[0]}")
    n_ranks, block = _n_ranks(source, n_rows), source.block[0]
    each = n_rows // n_ranks
    rank, row = np.divmod(np.arange(n_rows), each)
    scaled = replace(source, scale_row=rank * -(-each // block) + row // block, n_spare=0)
    if n_ranks == 1:
        return scaled
    shares = np.cumsum([dims["q"] // n_ranks, dims["k"] // n_ranks])
    by_rank = np.split(np.arange(n_rows).reshape(n_ranks, each), shares, axis=1)
    return picked(scaled, np.concatenate([part.ravel() for part in by_rank]))


def _n_ranks(source: Fp8, n_rows: int) -> int:
    found = source.scale.shape[0]
    for n_ranks in (8, 4, 1):  # what was published, then the plain order
        each = n_rows // n_ranks
        if n_rows % n_ranks == 0 and found == n_ranks * -(-each // source.block[0]):
            return n_ranks
    raise MtpError(f"{n_rows} rows and {found} rows of scales fit no number of ranks")


_NORMS = (
    Rule("blk.{i}.attn_norm.weight", "{L}.input_layernorm.weight", "embd"),
    Rule("blk.{i}.ffn_norm.weight", "{L}.post_attention_layernorm.weight", "embd"),
    Rule("blk.{i}.ffn_norm.weight", "{L}.pre_mlp_layernorm.weight", "embd"),
)

_QKV = (
    Rule("blk.{i}.attn_qkv.weight", _A + "qkv_proj.weight", "qkv,embd", fused_by_rank, maybe=True,
         ranked=True),
    Rule("blk.{i}.attn_qkv.weight",
         (_A + "q_proj.weight", _A + "k_proj.weight", _A + "v_proj.weight"), "qkv,embd",
         fused_rows, "head"),
    Rule("blk.{i}.attn_output.weight", _A + "o_proj.weight", "embd,o"),
    Rule("blk.{i}.attn_sinks.weight", _A + "attention_sink_bias", "n_head", maybe=True),
    Rule("blk.{i}.attn_sinks.weight", _A + "sinks", "n_head", maybe=True),
)  # fmt: skip

# In the target q, k and v may stay apart: its graph takes both.
_SEPARATE = tuple(
    replace(rule, maybe=True) for rule in attention(when="target")
    if "output" not in rule.to and rule.to.endswith(".weight")
)  # fmt: skip

_NEXTN = (
    Rule("blk.{i}.nextn.eh_proj.weight", "{L}.eh_proj.weight", "embd,2embd"),
    Rule("blk.{i}.nextn.enorm.weight", "{L}.enorm.weight", "embd"),
    Rule("blk.{i}.nextn.hnorm.weight", "{L}.hnorm.weight", "embd"),
    Rule("blk.{i}.layer_output_norm.weight", "{L}.final_layernorm.weight", "embd", maybe=True),
)

MIMO2 = Family(
    name="MiMo-V2",
    classes=("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"),
    arch="mimo2",
    rules=target_with_output(),
    layer_rules=union(_NORMS, _QKV, _SEPARATE, dense_ffn("dense"), experts(), router()),
    metadata=_metadata,
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="chained",
        prefix="model.mtp.layers.{h}",
        count=("num_nextn_predict_layers",),
        rules=_NEXTN,
        single=False,
    ),
    accepts=_accepts,
    ropes=frozenset({DEFAULT}),
    sliding_ropes=frozenset({DEFAULT}),
    has_windows=True,
    ignored=(*OTHER_TOWERS, "speech_embeddings."),
)

FAMILIES = (MIMO2,)
