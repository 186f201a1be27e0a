"""Llama and its relatives: targets without heads of their own.

Llama, SmolLM and Mistral run as llama.cpp's `llama`, whose rotary pairs are interleaved, so q and
k rows are re-ordered. Qwen2 and Qwen3 keep Hugging Face's order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mtp_convert.families.common import (
    attention,
    common_dims,
    common_metadata,
    dense_ffn,
    ffn_biases,
    head_dim,
    norms,
    qk_norms,
    target,
    union,
)  # fmt: skip
from mtp_convert.families.rope import LLAMA3, LONGROPE, SCALED, llama3_rope, longrope_factors
from mtp_convert.families.rules import Config, Family
from mtp_convert.families.transforms import interleaved
from mtp_convert.tensors.sources import Source


def _llama_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    return {
        **common_metadata(config, n_heads),
        "{arch}.vocab_size": config.count("vocab_size"),
        "{arch}.rope.dimension_count": head_dim(config),
        "{arch}.attention.key_length": head_dim(config),
        "{arch}.attention.value_length": head_dim(config),
    }


def _no_experts(config: Config) -> str | None:
    if config.find("num_local_experts", "num_experts"):
        return "a mixture of experts; this family's converter knows dense layers only"
    return None


def _rope(config: Config) -> dict[str, Source]:
    width = head_dim(config)
    return {**llama3_rope(config, width), **longrope_factors(config, width)}


LLAMA = Family(
    name="Llama",
    classes=("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM"),
    arch="llama",
    rules=target(),
    layer_rules=union(
        norms(),
        attention(interleaved("n_head"), interleaved("n_kv"), output_bias=True),
        dense_ffn(),
        ffn_biases(),
    ),
    metadata=_llama_metadata,
    dims=common_dims,
    extra=_rope,
    ropes=SCALED | {LLAMA3, LONGROPE},
    accepts=_no_experts,
    notes="no heads of its own; mtp-train makes one, pack joins it",
)

QWEN2 = Family(
    name="Qwen2",
    classes=("Qwen2ForCausalLM",),
    arch="qwen2",
    rules=target(),
    layer_rules=union(norms(), attention(), dense_ffn()),
    metadata=common_metadata,
    dims=common_dims,
    notes="no heads of its own",
)

QWEN3 = replace(
    QWEN2,
    name="Qwen3",
    classes=("Qwen3ForCausalLM",),
    arch="qwen3",
    layer_rules=union(norms(), attention(), qk_norms(), dense_ffn()),
)

FAMILIES = (LLAMA, QWEN2, QWEN3)
