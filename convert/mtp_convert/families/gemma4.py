"""Gemma 4 and its assistant: sliding and full attention of different widths, shared KV.

The heads are a checkpoint of their own, a small model that reads the target's keys and values
(`gemma4-assistant` in llama.cpp). Full attention rotates a quarter of each head "proportionally".

The unified model (12B) is a Gemma 4 whose images and sounds are projected without towers of their
own: its text part is the same, but for tokens that are never to be chosen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mtp_convert.families.common import (
    common_metadata,
    dense_ffn,
    qk_norms,
    union,
)
from mtp_convert.families.graph import GELU
from mtp_convert.families.rope import DEFAULT, PROPORTIONAL, proportional_factors
from mtp_convert.families.rules import OTHER_TOWERS, Config, Dims, Family, Rule
from mtp_convert.tensors.sources import Source

_VISIBLE = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
            "<tool_response|>", '<|"|>')  # fmt: skip


def _layer_types(config: Config) -> list[str]:
    return config.per_layer("layer_types", config.count("num_hidden_layers"))


def _is_sliding(config: Config, i: int) -> bool:
    return _layer_types(config)[i] == "sliding_attention"


def _full(config: Config, key: str, own: str) -> Any:
    """What full attention has instead: a key of its own, or (transformers 5) an entry by layer."""
    found = config.find(own)
    types = _layer_types(config)
    for layer, fields in (config.find("per_layer_config", default={})).items():
        is_full = int(layer) < len(types) and types[int(layer)] == "full_attention"
        if found is None and is_full:
            found = fields.get(key)
    return config.find(key) if found is None else found


def _heads(config: Config, i: int) -> tuple[int, int]:
    """Width of a head and number of key-value heads in layer i."""
    if _is_sliding(config, i):
        return config.count("head_dim"), config.count("num_key_value_heads")
    return (
        int(_full(config, "head_dim", "global_head_dim")),
        _n_kv_full(config),
    )


def _n_kv_full(config: Config) -> int:
    """Full attention has key heads of its own number only where its keys serve as values too."""
    if not config.find("attention_k_eq_v"):
        return config.count("num_key_value_heads")
    return int(_full(config, "num_key_value_heads", "num_global_key_value_heads"))


def _n_ff(config: Config, i: int) -> int:
    n_ff = config.count("intermediate_size")
    doubled = config.find("use_double_wide_mlp") and i >= _first_shared(config)
    return 2 * n_ff if doubled else n_ff


def _first_shared(config: Config) -> int:
    """The first layer that reads another's keys and values."""
    return config.count("num_hidden_layers") - config.count("num_kv_shared_layers", default=0)


def _dims(config: Config, i: int) -> Dims:
    width, n_kv = _heads(config, i)
    n_head, embd = config.count("num_attention_heads"), config.count("hidden_size")
    per_layer = config.count("hidden_size_per_layer_input", default=0)
    n_ff = config.count("moe_intermediate_size", "expert_intermediate_size", default=0)
    backbone = config.count("backbone_hidden_size", default=0)
    return {
        "vocab": config.count("vocab_size"), "embd": embd, "head_dim": width, "one": 1,
        "q": n_head * width, "k": n_kv * width, "v": n_kv * width, "ff": _n_ff(config, i),
        "per_layer": per_layer, "all_layers": per_layer * config.count("num_hidden_layers"),
        "vocab_pl": config.count("vocab_size_per_layer_input", "vocab_size"),
        "experts": config.count("num_experts", default=0), "ff_exp": n_ff, "2ff_exp": 2 * n_ff,
        "backbone": backbone, "2backbone": 2 * backbone,
    }  # fmt: skip


def _kinds(config: Config, i: int) -> frozenset[str]:
    kinds = {"own" if i < _first_shared(config) else "shared"}
    if config.find("hidden_size_per_layer_input"):
        kinds.add("per_layer")
    if config.find("enable_moe_block"):
        kinds.add("moe")
    return frozenset(kinds)


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    types = _layer_types(config)
    n_layers = len(types)
    full = int(_full(config, "head_dim", "global_head_dim"))
    sliding = config.rope.get("sliding_attention") or {}
    n_kv = config.count("num_key_value_heads")
    widths = [_n_ff(config, i) for i in range(n_layers)]
    softcap = config.find("final_logit_softcapping")
    n_ff_exp = config.whole("expert_intermediate_size", "moe_intermediate_size")
    return {
        **common_metadata(config, n_heads),
        "{arch}.feed_forward_length": widths if config.find("use_double_wide_mlp") else widths[0],
        "{arch}.attention.head_count_kv": (
            n_kv if _n_kv_full(config) == n_kv else [_heads(config, i)[1] for i in range(n_layers)]
        ),
        "{arch}.attention.shared_kv_layers": config.count("num_kv_shared_layers", default=0),
        "{arch}.attention.sliding_window": config.count("sliding_window"),
        "{arch}.attention.sliding_window_pattern": [t == "sliding_attention" for t in types],
        "{arch}.attention.key_length": full,
        "{arch}.attention.value_length": full,
        "{arch}.attention.key_length_swa": config.count("head_dim"),
        "{arch}.attention.value_length_swa": config.count("head_dim"),
        "{arch}.embedding_length_per_layer_input": config.count(
            "hidden_size_per_layer_input", default=0
        ),
        "{arch}.expert_feed_forward_length": n_ff_exp,
        # Left out, llama.cpp would take 30.
        "{arch}.final_logit_softcapping": float(softcap or 0.0),
        "{arch}.rope.dimension_count": full,
        "{arch}.rope.dimension_count_swa": int(
            config.count("head_dim") * sliding.get("partial_rotary_factor", 1.0)
        ),
    }


def _rope(config: Config) -> dict[str, Source]:
    scope = config.rope.get("full_attention") or {}
    width = int(_full(config, "head_dim", "global_head_dim"))
    return proportional_factors(config, width, float(scope.get("partial_rotary_factor", 0.25)))


_A = "{L}.self_attn."
_NORMS = (
    Rule("blk.{i}.attn_norm.weight", "{L}.input_layernorm.weight", "embd"),
    Rule("blk.{i}.post_attention_norm.weight", "{L}.post_attention_layernorm.weight", "embd"),
    Rule("blk.{i}.ffn_norm.weight", "{L}.pre_feedforward_layernorm.weight", "embd"),
    Rule("blk.{i}.post_ffw_norm.weight", "{L}.post_feedforward_layernorm.weight", "embd"),
    Rule("blk.{i}.layer_output_scale.weight", "{L}.layer_scalar", "one"),
)
_QUERY = (
    Rule("blk.{i}.attn_q.weight", _A + "q_proj.weight", "q,embd"),
    Rule("blk.{i}.attn_output.weight", _A + "o_proj.weight", "embd,q"),
    qk_norms()[0],
)
_KEYS = (
    Rule("blk.{i}.attn_k.weight", _A + "k_proj.weight", "k,embd", when="own"),
    replace(qk_norms()[1], when="own"),
    Rule("blk.{i}.attn_v.weight", _A + "v_proj.weight", "v,embd", when="own", maybe=True),
    # Layers that read another's keys may still ship their own; llama.cpp takes and ignores them.
    Rule("blk.{i}.attn_k.weight", _A + "k_proj.weight", "k,embd", when="shared", maybe=True),
    replace(qk_norms()[1], when="shared", maybe=True),
    Rule("blk.{i}.attn_v.weight", _A + "v_proj.weight", "v,embd", when="shared", maybe=True),
)
_PER_LAYER = (
    Rule("blk.{i}.inp_gate.weight", "{L}.per_layer_input_gate.weight", "per_layer,embd",
         when="per_layer"),
    Rule("blk.{i}.proj.weight", "{L}.per_layer_projection.weight", "embd,per_layer",
         when="per_layer"),
    Rule("blk.{i}.post_norm.weight", "{L}.post_per_layer_input_norm.weight", "embd",
         when="per_layer"),
)  # fmt: skip
_EXPERTS = (
    Rule("blk.{i}.ffn_gate_inp.weight", "{L}.router.proj.weight", "experts,embd", when="moe"),
    Rule("blk.{i}.ffn_gate_inp.scale", "{L}.router.scale", "embd", when="moe"),
    Rule("blk.{i}.ffn_down_exps.scale", "{L}.router.per_expert_scale", "experts", when="moe"),
    Rule("blk.{i}.ffn_gate_up_exps.weight", "{L}.experts.gate_up_proj", "experts,2ff_exp,embd",
         when="moe"),
    Rule("blk.{i}.ffn_down_exps.weight", "{L}.experts.down_proj", "experts,embd,ff_exp",
         when="moe"),
    Rule("blk.{i}.pre_ffw_norm_2.weight", "{L}.pre_feedforward_layernorm_2.weight", "embd",
         when="moe"),
    Rule("blk.{i}.post_ffw_norm_1.weight", "{L}.post_feedforward_layernorm_1.weight", "embd",
         when="moe"),
    Rule("blk.{i}.post_ffw_norm_2.weight", "{L}.post_feedforward_layernorm_2.weight", "embd",
         when="moe"),
)  # fmt: skip

_TARGET = (
    Rule("token_embd.weight", "model.embed_tokens.weight", "vocab,embd"),
    Rule("output_norm.weight", "model.norm.weight", "embd"),
)
_PER_LAYER_TARGET = (
    Rule("per_layer_token_embd.weight", "model.embed_tokens_per_layer.weight",
         "vocab_pl,all_layers", when="per_layer"),
    Rule("per_layer_model_proj.weight", "model.per_layer_model_projection.weight",
         "all_layers,embd", when="per_layer"),
    Rule("per_layer_proj_norm.weight", "model.per_layer_projection_norm.weight", "per_layer",
         when="per_layer"),
)  # fmt: skip

GEMMA4 = Family(
    name="Gemma 4",
    classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    arch="gemma4",
    rules=union(_TARGET, _PER_LAYER_TARGET),
    layer_rules=union(_NORMS, _QUERY, _KEYS, dense_ffn(), _PER_LAYER, _EXPERTS),
    metadata=_metadata,
    dims=_dims,
    kinds=_kinds,
    extra=_rope,
    ropes=frozenset({DEFAULT, PROPORTIONAL}),
    sliding_ropes=frozenset({DEFAULT}),
    activations=GELU,
    has_windows=True,
    visible_tokens=_VISIBLE,
    character_tokenizer="gemma4",
    notes="its heads are a checkpoint of their own, Gemma4AssistantForCausalLM",
)

GEMMA4_UNIFIED = replace(
    GEMMA4,
    name="Gemma 4 unified",
    classes=("Gemma4UnifiedForCausalLM", "Gemma4UnifiedForConditionalGeneration"),
    suppresses=True,
    notes="its heads are a checkpoint of their own, Gemma4UnifiedAssistantForCausalLM",
)


def _assistant_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    values = _metadata(config, n_heads)
    if not config.find("final_logit_softcapping"):  # which its graph does not look at
        del values["{arch}.final_logit_softcapping"]
    return {
        **values,
        "{arch}.embedding_length_out": config.count("backbone_hidden_size"),
        "{arch}.nextn_predict_layers": config.count("num_hidden_layers"),
    }


ASSISTANT = Family(
    name="Gemma 4 assistant",
    classes=("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"),
    arch="gemma4-assistant",
    is_beside=True,
    rules=union(
        _TARGET,
        (
            Rule("nextn.pre_projection.weight", "pre_projection.weight", "embd,2backbone"),
            Rule("nextn.post_projection.weight", "post_projection.weight", "backbone,embd"),
        ),
    ),
    layer_rules=union(_NORMS, _QUERY, dense_ffn()),
    metadata=_assistant_metadata,
    dims=_dims,
    kinds=_kinds,
    ignored=(*OTHER_TOWERS, "masked_embedding", "lm_head."),
    extra=_rope,
    ropes=frozenset({DEFAULT, PROPORTIONAL}),
    sliding_ropes=frozenset({DEFAULT}),
    activations=GELU,
    has_windows=True,
    visible_tokens=_VISIBLE,
    character_tokenizer="gemma4",
    notes="heads that share their target's KV: a file to lay beside a Gemma 4",
)

FAMILIES = (GEMMA4, GEMMA4_UNIFIED, ASSISTANT)
