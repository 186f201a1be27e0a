"""Step-3.5 and the text part of 3.7: sliding and full attention, gates, experts, chained heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mtp_convert.families.common import (
    attention,
    common_metadata,
    dense_ffn,
    norms,
    qk_norms,
    target_with_output,
    union,
)  # fmt: skip
from mtp_convert.families.rope import DEFAULT, LLAMA3, full_scope, kind_of, rope_factors
from mtp_convert.families.rules import OTHER_TOWERS, Config, Dims, Family, Heads, Rule
from mtp_convert.families.transforms import matrix, plus_one
from mtp_convert.tensors.sources import Constant, Source


def _layer_types(config: Config, n_layers: int) -> list[str]:
    """Also of the heads, whose entries follow the target's; absent ones attend fully."""
    found = [str(kind) for kind in config.find("layer_types", default=[])][:n_layers]
    return found + ["full_attention"] * (n_layers - len(found))


def _is_sliding(config: Config, i: int) -> bool:
    return _layer_types(config, i + 1)[i] == "sliding_attention"


def _groups(config: Config, i: int) -> tuple[int, int]:
    """Query and key-value heads of layer i."""
    other = config.find("attention_other_setting", default={}) if _is_sliding(config, i) else {}
    n_head = other.get("num_attention_heads", config.count("num_attention_heads"))
    return n_head, other.get("num_attention_groups", config.count("num_attention_groups"))


def _dims(config: Config, i: int) -> Dims:
    n_head, n_kv = _groups(config, i)
    width, embd = config.count("head_dim"), config.count("hidden_size")
    return {
        "vocab": config.count("vocab_size"), "embd": embd, "2embd": 2 * embd,
        "ff": config.count("intermediate_size"), "n_head": n_head, "n_kv": n_kv,
        "head_dim": width, "q": n_head * width, "k": n_kv * width, "v": n_kv * width,
        "o": n_head * width, "experts": config.count("moe_num_experts"),
        "ff_exp": config.count("moe_intermediate_size"),
        "ff_shexp": config.count("share_expert_dim"),
    }  # fmt: skip


def _moe_layers(config: Config) -> list[int]:
    text = str(config.find("moe_layers_enum", default="")).strip()
    return sorted(int(number) for number in text.split(",")) if text else []


def _kinds(config: Config, i: int) -> frozenset[str]:
    return frozenset({"moe" if i in _moe_layers(config) else "dense"})


def _floats(config: Config, key: str, n_layers: int) -> list[float] | None:
    limits = config.find(key)
    if limits is None:
        return None
    found = [0.0 if limit is None else float(limit) for limit in limits][:n_layers]
    return found + [0.0] * (n_layers - len(found))


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    n_layers = config.count("num_hidden_layers") + n_heads
    groups = [_groups(config, i) for i in range(n_layers)]
    theta = config.find("rope_theta", default=config.rope.get("rope_theta"))
    both = [float(t) for t in theta] if isinstance(theta, list) else [float(theta), None]
    scale = config.find("moe_router_scaling_factor")
    width = config.count("head_dim")
    flat = Config({**config.values, "rope_theta": both[0], "text_config": None}, config.where)
    return {
        **common_metadata(flat, n_heads),
        "{arch}.rope.freq_base": both[0],
        "{arch}.rope.freq_base_swa": both[1],
        "{arch}.attention.head_count": [n_head for n_head, _ in groups],
        "{arch}.attention.head_count_kv": [n_kv for _, n_kv in groups],
        "{arch}.attention.sliding_window": config.count("sliding_window"),
        "{arch}.attention.sliding_window_pattern": [
            kind == "sliding_attention" for kind in _layer_types(config, n_layers)
        ],
        "{arch}.attention.key_length": width,
        "{arch}.attention.value_length": width,
        "{arch}.expert_count": config.count("moe_num_experts"),
        "{arch}.expert_used_count": config.count("moe_top_k"),
        "{arch}.expert_feed_forward_length": config.count("moe_intermediate_size"),
        "{arch}.expert_shared_feed_forward_length": config.count("share_expert_dim"),
        "{arch}.expert_weights_scale": None if scale is None else float(scale),
        "{arch}.expert_weights_norm": config.flag("norm_expert_weight"),
        "{arch}.leading_dense_block_count": min(_moe_layers(config), default=0),
        "{arch}.moe_every_n_layers": config.count("moe_every_n_layer", default=1),
        "{arch}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", default=1e-5),
        "{arch}.swiglu_clamp_exp": _floats(config, "swiglu_limits", n_layers),
        "{arch}.swiglu_clamp_shexp": _floats(config, "swiglu_limits_shared", n_layers),
    }


def _rope(config: Config) -> dict[str, Source]:
    """Llama 3's factors for the rotary half of full attention, ones for the rest."""
    scope = full_scope(config)
    if kind_of(scope) != LLAMA3:
        return {}
    theta = config.find("rope_theta", default=10000.0)
    base = theta[0] if isinstance(theta, list) else theta
    flat = Config({"rope_theta": base}, config.where)
    width = config.count("head_dim")
    factors = rope_factors(scope, flat, width // 2)
    ones = np.ones(width // 2 - len(factors), np.float32)
    return {"rope_freqs.weight": Constant(np.concatenate([factors, ones]))}


def _experts(hf: str, gguf: str, shape: str) -> Rule:
    """Step ships its experts stacked."""
    return Rule(f"blk.{{i}}.{gguf}.weight", "{L}.moe." + hf, shape, when="moe")


_LAYER = union(
    norms(norm=plus_one),
    attention(),
    qk_norms(plus_one, maybe=True),
    (Rule("blk.{i}.attn_gate.weight", "{L}.self_attn.g_proj.weight", "n_head,embd", matrix,
          maybe=True),),
    dense_ffn("dense"),
    (
        _experts("gate.weight", "ffn_gate_inp", "experts,embd"),
        _experts("gate_proj.weight", "ffn_gate_exps", "experts,ff_exp,embd"),
        _experts("up_proj.weight", "ffn_up_exps", "experts,ff_exp,embd"),
        _experts("down_proj.weight", "ffn_down_exps", "experts,embd,ff_exp"),
        Rule("blk.{i}.exp_probs_b.bias", "{L}.moe.router_bias", "experts", when="moe",
             maybe=True),
    ),
    dense_ffn("moe", "_shexp", "share_expert", "ff_shexp"),
)  # fmt: skip

_T = "{L}.transformer.shared_head."
_NEXTN = (
    Rule("blk.{i}.nextn.eh_proj.weight", "{L}.eh_proj.weight", "embd,2embd"),
    Rule("blk.{i}.nextn.enorm.weight", "{L}.enorm.weight", "embd", plus_one),
    Rule("blk.{i}.nextn.hnorm.weight", "{L}.hnorm.weight", "embd", plus_one),
    Rule("blk.{i}.nextn.embed_tokens.weight", "{L}.embed_tokens.weight", "vocab,embd", maybe=True),
    Rule("blk.{i}.nextn.shared_head_head.weight", _T + "output.weight", "vocab,embd", maybe=True),
    Rule("blk.{i}.nextn.shared_head_norm.weight", _T + "norm.weight", "embd", plus_one,
         maybe=True),
)  # fmt: skip

STEP35 = Family(
    name="Step-3.5",
    classes=("Step3p5ForCausalLM",),
    arch="step35",
    rules=target_with_output(plus_one),
    layer_rules=_LAYER,
    metadata=_metadata,
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="chained",
        prefix="model.layers.{i}",
        count=("num_nextn_predict_layers",),
        rules=_NEXTN,
        single=False,
    ),
    extra=_rope,
    ropes=frozenset({DEFAULT, LLAMA3}),
    sliding_ropes=frozenset({DEFAULT}),
    has_windows=True,
)

# The same under text_config, beside a vision tower.
STEP37 = replace(
    STEP35,
    name="Step-3.7",
    classes=("Step3p7ForConditionalGeneration",),
    ignored=(*OTHER_TOWERS, "vit_large_projector."),
)

FAMILIES = (STEP35, STEP37)
