"""GLM-4.5, 4.6 and 4.7: experts, attention with biases, one reused head after the last layer."""

from __future__ import annotations

from typing import Any

from mtp_convert.families.common import (
    attention,
    common_metadata,
    dense_ffn,
    dense_until_first_k,
    experts,
    head_dim,
    moe_dims,
    moe_metadata,
    nextn,
    norms,
    qk_norms,
    router,
    target,
    union,
)  # fmt: skip
from mtp_convert.families.rules import Config, Family, Heads

SIGMOID = 2

# Using <|endoftext|> as the end of a turn makes these models talk on.
SPECIAL_TOKENS = (
    ("bos", "[gMASK]"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"), ("eom", "<|observation|>"),
)  # fmt: skip


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    partial = config.rope_value("partial_rotary_factor", default=0.5) or 0.5
    return {
        **common_metadata(config, n_heads),
        **moe_metadata(config, n_heads),
        "{arch}.rope.dimension_count": int(head_dim(config) * partial),
        "{arch}.expert_gating_func": SIGMOID,
    }


GLM4_MOE = Family(
    name="GLM-4.5",
    classes=("Glm4MoeForCausalLM",),
    arch="glm4moe",
    rules=target(),
    layer_rules=union(
        norms("post_attention_norm"),
        attention(),
        qk_norms(maybe=True),
        dense_ffn("dense"),
        experts(),
        router(),
        dense_ffn("moe", "_shexp", "mlp.shared_experts", "ff_shexp"),
    ),
    metadata=_metadata,
    dims=moe_dims,
    kinds=dense_until_first_k,
    heads=Heads(
        kind="reused",
        prefix="model.layers.{i}",
        count=("num_nextn_predict_layers",),
        rules=nextn(),
    ),
    pre_tokenizer="glm4",
    special_tokens=SPECIAL_TOKENS,
)

FAMILIES = (GLM4_MOE,)
