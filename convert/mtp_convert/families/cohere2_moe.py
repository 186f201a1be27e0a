"""North-Mini-Code: parallel attention and experts, sliding and full attention.

Only sliding layers and the dense ones in front have rotary positions. The makers publish no head;
one that was trained since lies where llama.cpp's converter reads it, as the layer behind the last.
"""

from __future__ import annotations

from typing import Any

from mtp_convert.families.common import (
    attention,
    common_dims,
    common_metadata,
    dense_ffn,
    dense_until_first_k,
    experts,
    leading_dense,
    nextn,
    router,
    target,
    union,
)  # fmt: skip
from mtp_convert.families.glm4_moe import SIGMOID
from mtp_convert.families.rope import DEFAULT
from mtp_convert.families.rules import Config, Dims, Family, Heads, Rule

_SOFTMAX = 1
_SLIDING, _FULL = "sliding_attention", "full_attention"


def _layer_types(config: Config) -> list[str]:
    """As config.json lists them, or else by transformers' two patterns."""
    n_layers, n_dense = config.count("num_hidden_layers"), leading_dense(config) or 0
    if config.find("layer_types") is not None:
        return [str(kind) for kind in config.per_layer("layer_types", n_layers)]
    pattern = config.count("sliding_window_pattern", default=4)
    periods = [_prefix_pattern(config)] * n_dense + [pattern] * (n_layers - n_dense)
    places = [*range(n_dense), *range(n_layers - n_dense)]
    return [
        _SLIDING if (place + 1) % max(period, 1) else _FULL
        for place, period in zip(places, periods, strict=False)
    ]


def _prefix_pattern(config: Config) -> int:
    return config.count("prefix_dense_sliding_window_pattern", default=1)


def _n_shared(config: Config) -> int:
    return config.count("num_shared_experts", default=0)


def _dense_width(config: Config) -> int:
    return config.count("prefix_dense_intermediate_size", "intermediate_size")


def _dims(config: Config, i: int) -> Dims:
    n_ff = config.count("intermediate_size")
    return {
        **common_dims(config, i),
        "ff": _dense_width(config),
        "experts": config.count("num_experts"),
        "ff_exp": n_ff,
        "ff_shexp": n_ff * _n_shared(config),
    }


def _kinds(config: Config, i: int) -> frozenset[str]:
    kinds = dense_until_first_k(config, i)
    return kinds | {"shared"} if "moe" in kinds and _n_shared(config) else kinds


def _is_softmax(config: Config) -> bool:
    return bool(config.find("expert_selection_fn", default="softmax") == "softmax")


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    n_ff, n_shared = config.count("intermediate_size"), _n_shared(config)
    return {
        **common_metadata(config, n_heads),
        "{arch}.feed_forward_length": _dense_width(config),
        "{arch}.attention.layer_norm_epsilon": config.number("layer_norm_eps", default=1e-5),
        "{arch}.logit_scale": config.number("logit_scale", default=0.0625),
        "{arch}.attention.sliding_window": config.count("sliding_window"),
        "{arch}.attention.sliding_window_pattern": [
            kind == _SLIDING for kind in _layer_types(config)
        ],
        "{arch}.vocab_size": config.count("vocab_size"),
        "{arch}.expert_feed_forward_length": n_ff,
        "{arch}.leading_dense_block_count": leading_dense(config) or 0,
        "{arch}.expert_gating_func": _SOFTMAX if _is_softmax(config) else SIGMOID,
        "{arch}.expert_weights_norm": config.flag("norm_topk_prob") is not False,
        "{arch}.expert_shared_count": n_shared or None,
        "{arch}.expert_shared_feed_forward_length": n_ff * n_shared or None,
        "{arch}.rope.dimension_count": config.count("head_dim"),
        "{arch}.rope.scaling.type": "none",
    }


def _accepts(config: Config) -> str | None:
    """Variants that the code has names for and llama.cpp's graph does not compute."""
    function = config.find("expert_selection_fn", default="softmax")
    if function not in ("softmax", "sigmoid"):
        return f"expert_selection_fn: {str(function)[:40]}: expected softmax or sigmoid"
    if _is_softmax(config) and config.flag("norm_topk_prob") is False:
        return "expert_selection_fn: softmax of the chosen experts, which llama.cpp's graph lacks"
    average = config.find("shared_expert_combination_strategy", default="average")
    if _n_shared(config) and average != "average":
        return "shared_expert_combination_strategy: llama.cpp's graph has the average only"
    dense = _layer_types(config)[: leading_dense(config) or 0]
    if _FULL in dense and _prefix_pattern(config) != 1:
        return "prefix_dense_sliding_window_pattern: llama.cpp gives every dense layer positions"
    return None


COHERE2_MOE = Family(
    name="North-Mini-Code",
    classes=("Cohere2MoeForCausalLM",),
    arch="cohere2moe",
    rules=target(),
    layer_rules=union(
        (Rule("blk.{i}.attn_norm.weight", "{L}.input_layernorm.weight", "embd"),),
        attention(),
        dense_ffn("dense"),
        experts(),
        router(bias=False),
        dense_ffn("shared", "_shexp", "mlp.shared_experts", "ff_shexp"),
    ),
    metadata=_metadata,
    ropes=frozenset({DEFAULT}),
    has_windows=True,
    accepts=_accepts,
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="reused",
        prefix="model.layers.{i}",
        count=("num_nextn_predict_layers",),
        rules=nextn(),
    ),
    pre_tokenizer="cohere2moe",
)

FAMILIES = (COHERE2_MOE,)
