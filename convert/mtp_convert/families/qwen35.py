"""Qwen3.5 (dense and MoE) and Qwen3-Next: hybrid targets with one reused head under `mtp.`.

Three of four layers are linear attention (gated delta net), whose value heads Hugging Face groups
by key head and ggml wants tiled (Qwen3.5 only; Qwen3-Next's graph takes them grouped). All norms
are stored around zero, so one is added, but not to the linear attention's own norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtp_cli.errors import MtpError
from mtp_convert.families.common import (
    attention,
    common_dims,
    common_metadata,
    dense_ffn,
    experts,
    head_dim,
    moe_dims,
    norms,
    qk_norms,
    router,
    target,
    union,
    with_kind,
)  # fmt: skip
from mtp_convert.families.rope import MROPE, SCALED
from mtp_convert.families.rules import Config, Dims, Family, Heads, Rule
from mtp_convert.families.transforms import (
    minus_exp,
    picked,
    plus_one,
    squeezed,
    then,
    tiled_columns,
    tiled_rows,
)  # fmt: skip
from mtp_convert.tensors.sources import Source

_A = "{L}.linear_attn."


def _linear_dims(config: Config) -> dict[str, int]:
    k_heads, v_heads = (config.count(f"linear_num_{x}_heads") for x in ("key", "value"))
    k_dim, v_dim = (config.count(f"linear_{x}_head_dim") for x in ("key", "value"))
    key, value = k_heads * k_dim, v_heads * v_dim
    return {
        "k_heads": k_heads, "v_heads": v_heads, "k_dim": k_dim, "v_dim": v_dim, "key": key,
        "value": value, "qkv": 2 * key + value, "kernel": config.count("linear_conv_kernel_dim"),
        "one": 1, "ba": 2 * v_heads,
    }  # fmt: skip


def _dense_dims(config: Config, i: int) -> Dims:
    dims = common_dims(config, i)
    return with_kind({**dims, **_linear_dims(config)}, q2=2 * dims["q"])


def _moe_dims(config: Config, i: int) -> Dims:
    dims = moe_dims(config, i)
    shared = config.count("shared_expert_intermediate_size")
    return with_kind({**dims, **_linear_dims(config)}, q2=2 * dims["q"], ff_shexp=shared)


def _layer_types(config: Config) -> list[str]:
    n_layer = config.count("num_hidden_layers")
    if config.find("layer_types"):
        return [str(kind) for kind in config.per_layer("layer_types", n_layer)]
    interval = config.count("full_attention_interval", default=4)
    return ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(n_layer)]


def _kinds(config: Config, i: int) -> frozenset[str]:
    types = _layer_types(config)
    linear = i < len(types) and types[i] == "linear_attention"
    return frozenset({"linear" if linear else "full"})


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    dims = _linear_dims(config)
    partial = config.rope_value("partial_rotary_factor", default=0.25) or 0.25
    types = _layer_types(config)
    recurrent = [kind == "linear_attention" for kind in types] + [False] * n_heads
    return {
        **common_metadata(config, n_heads),
        "{arch}.ssm.conv_kernel": dims["kernel"],
        "{arch}.ssm.state_size": dims["k_dim"],
        "{arch}.ssm.group_count": dims["k_heads"],
        "{arch}.ssm.time_step_rank": dims["v_heads"],
        "{arch}.ssm.inner_size": dims["value"],
        "{arch}.attention.recurrent_layers": recurrent if config.find("layer_types") else None,
        "{arch}.full_attention_interval": config.count("full_attention_interval", default=4),
        "{arch}.rope.dimension_count": int(head_dim(config) * partial),
        "{arch}.expert_feed_forward_length": config.whole("moe_intermediate_size"),
        "{arch}.expert_shared_feed_forward_length": config.whole("shared_expert_intermediate_size"),
    }


def _mrope_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    sections = list(config.rope.get("mrope_section") or [11, 11, 10])
    return {
        **_metadata(config, n_heads),
        "{arch}.rope.dimension_sections": [*sections, 0, 0, 0, 0][:4],
    }


def _accepts(config: Config) -> str | None:
    # llama.cpp's graph has one size for the state of both.
    if config.find("linear_key_head_dim") != config.find("linear_value_head_dim"):
        return "linear_key_head_dim and linear_value_head_dim differ; llama.cpp needs them equal"
    return None


def _regrouped(parts: slice) -> Any:
    """Qwen3-Next's fused rows per key head [q k v z] -> all q, then all k, v or z."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        n_heads, each = dims["k_heads"], dims["v_heads"] // dims["k_heads"] * dims["v_dim"]
        widths = [dims["k_dim"], dims["k_dim"], each, each]
        n, _ = sources[0].shape
        if n != n_heads * sum(widths):
            raise MtpError(f"expected {n_heads} times {sum(widths)} rows, found {n}")
        index = np.arange(n).reshape(n_heads, sum(widths))
        columns = np.split(index, np.cumsum(widths)[:-1], axis=1)
        return picked(sources[0], np.concatenate([column.ravel() for column in columns[parts]]))

    return transform


_COMMON = union(
    norms("post_attention_norm", plus_one),
    attention(when="full", q_shape="q2"),
    qk_norms(plus_one, "full"),
    (
        Rule("blk.{i}.ssm_norm.weight", _A + "norm.weight", "v_dim", when="linear"),
    ),
)  # fmt: skip

_LINEAR35 = (
    Rule("blk.{i}.attn_qkv.weight", _A + "in_proj_qkv.weight", "qkv,embd",
         tiled_rows("v_dim", "key+key"), "linear"),
    Rule("blk.{i}.attn_gate.weight", _A + "in_proj_z.weight", "value,embd", tiled_rows("v_dim"),
         "linear"),
    Rule("blk.{i}.ssm_beta.weight", _A + "in_proj_b.weight", "v_heads,embd", tiled_rows("one"),
         "linear"),
    Rule("blk.{i}.ssm_alpha.weight", _A + "in_proj_a.weight", "v_heads,embd", tiled_rows("one"),
         "linear"),
    Rule("blk.{i}.ssm_conv1d.weight", _A + "conv1d.weight", "qkv,kernel",
         tiled_rows("v_dim", "key+key"), "linear"),
    Rule("blk.{i}.ssm_dt.bias", _A + "dt_bias", "v_heads", tiled_rows("one"), "linear"),
    Rule("blk.{i}.ssm_a", _A + "A_log", "v_heads", then(minus_exp, tiled_rows("one")), "linear"),
    Rule("blk.{i}.ssm_out.weight", _A + "out_proj.weight", "embd,value", tiled_columns("v_dim"),
         "linear"),
)  # fmt: skip

_LINEAR_NEXT = (
    Rule("blk.{i}.attn_qkv.weight", _A + "in_proj_qkvz.weight", "qkv,embd",
         _regrouped(slice(0, 3)), "linear"),
    Rule("blk.{i}.attn_gate.weight", _A + "in_proj_qkvz.weight", "value,embd",
         _regrouped(slice(3, 4)), "linear"),
    Rule("blk.{i}.ssm_ba.weight", _A + "in_proj_ba.weight", "ba,embd", when="linear"),
    Rule("blk.{i}.ssm_conv1d.weight", _A + "conv1d.weight", "qkv,kernel", squeezed, "linear"),
    Rule("blk.{i}.ssm_dt.bias", _A + "dt_bias", "v_heads", when="linear"),
    Rule("blk.{i}.ssm_a", _A + "A_log", "v_heads", minus_exp, "linear"),
    Rule("blk.{i}.ssm_out.weight", _A + "out_proj.weight", "embd,value", when="linear"),
)  # fmt: skip

_EXPERTS = union(
    experts(when=""),
    router(when="", bias=False),
    dense_ffn(gguf="_shexp", hf="mlp.shared_expert", ff="ff_shexp"),
    (Rule("blk.{i}.ffn_gate_inp_shexp.weight", "{L}.mlp.shared_expert_gate.weight", "one,embd"),),
)

_NEXTN = (
    Rule("blk.{i}.nextn.eh_proj.weight", "mtp.fc.weight", "embd,2embd"),
    Rule("blk.{i}.nextn.enorm.weight", "mtp.pre_fc_norm_embedding.weight", "embd", plus_one),
    Rule("blk.{i}.nextn.hnorm.weight", "mtp.pre_fc_norm_hidden.weight", "embd", plus_one),
    Rule("blk.{i}.nextn.shared_head_norm.weight", "mtp.norm.weight", "embd", plus_one),
)

_HEADS = Heads(
    kind="reused",
    prefix="mtp.layers.{h}",
    count=("mtp_num_hidden_layers",),
    rules=_NEXTN,
    memory="hybrid",
)

_RENAMES = (("language_model.", ""), ("model.mtp.", "mtp."))

QWEN35 = Family(
    name="Qwen3.5",
    classes=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    arch="qwen35",
    rules=target(plus_one),
    layer_rules=union(_COMMON, _LINEAR35, dense_ffn()),
    metadata=_mrope_metadata,
    dims=_dense_dims,
    kinds=_kinds,
    heads=_HEADS,
    renames=_RENAMES,
    accepts=_accepts,
    ropes=SCALED | {MROPE},
)

QWEN35_MOE = replace(
    QWEN35,
    name="Qwen3.5-MoE",
    classes=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    arch="qwen35moe",
    layer_rules=union(_COMMON, _LINEAR35, _EXPERTS),
    dims=_moe_dims,
)

QWEN3_NEXT = replace(
    QWEN35_MOE,
    name="Qwen3-Next",
    classes=("Qwen3NextForCausalLM",),
    arch="qwen3next",
    layer_rules=union(_COMMON, _LINEAR_NEXT, _EXPERTS),
    metadata=_metadata,
    ropes=SCALED,
)

FAMILIES = (QWEN35, QWEN35_MOE, QWEN3_NEXT)
