"""DFlash and DSpark drafters whose layers are not Qwen3's: Gemma 4's and Muse Glimmer's.

What a drafter of blocks is stands in `dflash.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from mtp_convert.families import dflash
from mtp_convert.families.common import dense_ffn, norms, qk_norms, union
from mtp_convert.families.graph import GELU
from mtp_convert.families.rope import (
    DEFAULT,
    PROPORTIONAL,
    Scope,
    full_scope,
    kind_of,
    proportional_factors,
)
from mtp_convert.families.rules import Config, LayerReader, Rule
from mtp_convert.tensors.sources import Source

_ROPE: dict[str, Any] = {
    "rope_type": PROPORTIONAL,
    "rope_theta": 1e6,
}  # where a Gemma 4's config says nothing
_FRACTION = 0.25  # of a head that is turned, where it says no more


def _gemma4(config: Config) -> Config:
    """The config with full attention's sizes for all layers."""
    sizes = {
        "head_dim": config.count("global_head_dim"),
        "num_key_value_heads": config.count("num_global_key_value_heads"),
        "rope_parameters": full_scope(config) or _ROPE,
    }
    return Config({**config.values, **sizes}, config.where)


def _gemma4_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    own = _gemma4(config)
    return {
        **dflash.block_metadata(own, n_heads),
        "{arch}.rope.dimension_count": own.count("head_dim"),
        "{arch}.embedding_scale": config.count("hidden_size") ** 0.5,
        "{arch}.attention.scale": 1.0,
        "{arch}.hidden_activation": "gelu_pytorch_tanh",
    }


def _gemma4_pair(config: Config, names: Collection[str], has_mrope: bool) -> dict[str, Any]:
    anchor = config.flag("sample_from_anchor")
    return {
        **dflash.of_pair(_gemma4(config), names, has_mrope),
        "{arch}.sample_from_anchor": True if anchor is None else anchor,
        "{arch}.has_confidence_head": "confidence_head.proj.weight" in names,
    }


def _gemma4_kinds(config: Config, i: int) -> frozenset[str]:
    kinds = dflash.block_kinds(config, i, dflash.RANK)
    return kinds | {"tied" if config.flag("tie_word_embeddings") else "untied"}


def _gemma4_rope(config: Config) -> dict[str, Source]:
    scope: Scope = full_scope(config) or _ROPE
    if kind_of(scope) != PROPORTIONAL:
        return {}
    fraction = float(scope.get("partial_rotary_factor", _FRACTION))
    return proportional_factors(config, config.count("global_head_dim"), fraction)


def _gemma4_accepted(config: Config) -> str | None:
    n_layers = config.count("num_hidden_layers")
    if not config.flag("attention_k_eq_v"):
        return "attention_k_eq_v: llama.cpp takes keys for values"
    if config.find("layer_types") != ["full_attention"] * n_layers:
        return "layer_types: llama.cpp knows full attention only, for these drafters"
    if config.count("draft_vocab_size", default=config.count("vocab_size")) != config.count(
        "vocab_size"
    ):
        return "draft_vocab_size: llama.cpp knows the whole vocabulary only, for these drafters"
    for key in ("enable_moe_block", "attention_bias", "final_logit_softcapping"):
        if config.find(key):
            return f"{key}: llama.cpp has none for these drafters"
    return dflash.accepted(config)


_L = "{L}."
_GEMMA4_NORMS = (
    norms()[0],
    Rule("blk.{i}.post_attention_norm.weight", _L + "post_attention_layernorm.weight", "embd"),
    Rule("blk.{i}.ffn_norm.weight", _L + "pre_feedforward_layernorm.weight", "embd"),
    Rule("blk.{i}.post_ffw_norm.weight", _L + "post_feedforward_layernorm.weight", "embd"),
    Rule("blk.{i}.layer_output_scale.weight", _L + "layer_scalar", "one", maybe=True),
)

GEMMA4_DSPARK = replace(
    dflash.DSPARK,
    name="Gemma 4 DSpark",
    classes=("Gemma4DSparkModel",),
    reads=LayerReader(kind=dflash.KIND, layers=dflash.layers_of, more=_gemma4_pair),
    rules=union(
        dflash.ROOT,
        (replace(dflash.FULL, when="tied"), replace(dflash.FULL, when="untied", maybe=False)),
        dflash.MARKOV,
    ),
    layer_rules=union(_GEMMA4_NORMS, dflash.without_biases(), qk_norms(), dense_ffn()),
    renames=(("model.", ""), ("confidence_proj.", "confidence_head.proj.")),
    ignored=dflash.DFLASH.ignored,
    metadata=_gemma4_metadata,
    dims=lambda config, i: dflash.block_dims(_gemma4(config), i),
    kinds=_gemma4_kinds,
    extra=_gemma4_rope,
    ropes=frozenset({DEFAULT, PROPORTIONAL}),
    sliding_ropes=frozenset({DEFAULT}),
    activations=GELU,
    accepts=_gemma4_accepted,
)


def _with_vocabulary(config: Config) -> Config:
    """These drafters name no vocabulary: it is their target's."""
    return Config({"vocab_size": 0, **config.values}, config.where)


def _muse_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    is_windowed = config.find("layer_types") is not None
    own = {"use_sliding_window": is_windowed, **config.values}
    return dflash.block_metadata(Config(own, config.where), n_heads)


MUSE_GLIMMER = replace(
    dflash.DFLASH,
    name="Muse Glimmer assistant",
    classes=("MuseGlimmerAssistantModel",),
    reads=LayerReader(kind=dflash.KIND, layers=dflash.layers_of, more=dflash.of_pair),
    renames=(
        ("model.", ""),
        ("encoder.fc.", "fc."),
        ("encoder.output_norm_enc.", "hidden_norm."),
    ),
    metadata=_muse_metadata,
    dims=lambda config, i: dflash.block_dims(_with_vocabulary(config), i),
    kinds=lambda config, i: dflash.block_kinds(_with_vocabulary(config), i),
)

FAMILIES = (GEMMA4_DSPARK, MUSE_GLIMMER)
