"""Hy3: experts beside a shared one, norms of queries and keys, one reused head."""

from __future__ import annotations

from typing import Any

from mtp_convert.families.common import (
    attention,
    common_dims,
    common_metadata,
    dense_ffn,
    experts,
    leading_dense,
    nextn,
    norms,
    qk_norms,
    target,
    union,
)  # fmt: skip
from mtp_convert.families.glm4_moe import SIGMOID
from mtp_convert.families.rules import Config, Dims, Family, Heads, Rule


def _shared_width(config: Config) -> int:
    return config.count("moe_intermediate_size") * config.count("num_shared_experts", default=1)


def _dims(config: Config, i: int) -> Dims:
    return {
        **common_dims(config, i),
        "experts": config.count("num_experts", "num_local_experts"),
        "ff_exp": config.count("moe_intermediate_size"),
        "ff_shexp": _shared_width(config),
    }


def _kinds(config: Config, i: int) -> frozenset[str]:
    first = leading_dense(config)
    return frozenset({"dense" if i < (1 if first is None else first) else "moe"})


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    norm = config.flag("route_norm")
    return {
        **common_metadata(config, n_heads),
        "{arch}.expert_feed_forward_length": config.count("moe_intermediate_size"),
        "{arch}.expert_shared_feed_forward_length": _shared_width(config),
        "{arch}.expert_weights_norm": True if norm is None else norm,
        "{arch}.expert_weights_scale": config.number("router_scaling_factor", default=1.0),
        "{arch}.expert_gating_func": SIGMOID,
    }


_M = "{L}.mlp."
_WHEN = "moe"
# Each by its published name, then by the one that transformers 5 gives it.
_ROUTER = tuple(
    Rule(to, _M + of, shape, when=_WHEN)
    for to, of, shape in (
        ("blk.{i}.ffn_gate_inp.weight", "router.gate.weight", "experts,embd"),
        ("blk.{i}.ffn_gate_inp.weight", "gate.weight", "experts,embd"),
        ("blk.{i}.exp_probs_b", "expert_bias", "experts"),
        ("blk.{i}.exp_probs_b", "e_score_correction_bias", "experts"),
    )
)
_NEXTN = (
    *(rule for rule in nextn() if not rule.to.endswith("shared_head_norm.weight")),
    Rule("blk.{i}.nextn.shared_head_norm.weight", "{L}.final_layernorm.weight", "embd"),
)

HY_V3 = Family(
    name="Hy3",
    classes=("HYV3ForCausalLM",),
    arch="hy_v3",
    rules=target(),
    layer_rules=union(
        norms(),
        attention(),
        qk_norms(),
        dense_ffn("dense"),
        experts(),
        _ROUTER,
        dense_ffn("moe", "_shexp", "mlp.shared_mlp", "ff_shexp"),
        dense_ffn("moe", "_shexp", "mlp.shared_experts", "ff_shexp"),
    ),
    metadata=_metadata,
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="reused",
        prefix="model.layers.{i}",
        count=("num_nextn_predict_layers",),
        rules=_NEXTN,
    ),
)

FAMILIES = (HY_V3,)
