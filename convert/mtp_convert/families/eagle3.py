"""EAGLE-3 drafters (arXiv:2503.01840): one layer that reads fused rows of another model's layers.

Two layouts are published. SpecForge's, and that of the paper's authors, have the layer under
`midlayer` and a flat config; speculators has it under `layers.0`, and the layer's own config
nested. Both leave out the tokenizer and the number of layers: those are the target's
(`commands/drafter.py`). Rotary pairs become llama's, as for a Llama target.
"""

from __future__ import annotations

from typing import Any

from mtp_convert.families.common import (
    attention,
    common_dims,
    common_metadata,
    dense_ffn,
    head_dim,
    norms,
    union,
)
from mtp_convert.families.rope import LLAMA3, SCALED, llama3_rope
from mtp_convert.families.rules import Config, Family, LayerReader, Rule
from mtp_convert.families.transforms import interleaved
from mtp_convert.tensors.sources import Source

N_FUSED = 3  # layers whose rows are fused, in llama.cpp's graph
_LAYERS = "eagle_aux_hidden_state_layer_ids"


def _dims(config: Config, i: int) -> dict[str, int]:
    dims = common_dims(config, i)
    width = config.count("target_hidden_size", default=dims["embd"])
    n_draft = config.count("draft_vocab_size", default=dims["vocab"])
    return {**dims, "draft": n_draft, "row": width, "fused": N_FUSED * width}


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    width = config.count("target_hidden_size", default=config.count("hidden_size"))
    return {
        **common_metadata(config, 0),
        "{arch}.vocab_size": config.count("vocab_size"),
        "{arch}.rope.dimension_count": head_dim(config),
        "{arch}.attention.key_length": head_dim(config),
        "{arch}.attention.value_length": head_dim(config),
        "{arch}.target_hidden_size": width,
        "{arch}.norm_before_residual": config.flag("norm_before_residual") or False,
        "{arch}.norm_before_fc": config.flag("norm_before_fc") or False,
    }


def _layers(config: Config, n_layers: int) -> list[int]:
    """Those whose input is read, as named, or the paper's: an early, a middle and a late one.

    SpecForge names, in `eagle_config`, the layers whose output it read, the first by default: what
    the second one's input is. Others fill the same key with inputs, and leave the first layer's
    out. So the first number tells, as it does in SGLang (sgl-project/sglang#25454).
    """
    nested = config.find("eagle_config", default={})
    outputs = nested.get(_LAYERS) if isinstance(nested, dict) else None
    named = config.find(_LAYERS) or _inputs(outputs)
    return named or [2, n_layers // 2, n_layers - 3]


def _inputs(layers: Any) -> Any:
    """The layers that read what these give, where they are counted so."""
    is_list = isinstance(layers, list) and all(type(layer) is int for layer in layers)
    return [layer + 1 for layer in layers] if is_list and layers[:1] == [1] else layers


def _kinds(config: Config, i: int) -> frozenset[str]:
    return frozenset({"normed"} if config.flag("norm_before_fc") else ())


def _rope(config: Config) -> dict[str, Source]:
    return llama3_rope(config, head_dim(config))


def _is_named_llama(config: Config) -> bool:
    """As the paper's authors name theirs."""
    is_llama = config.find("architectures") == ["LlamaForCausalLM"]
    return is_llama and config.find("draft_vocab_size") is not None


def _one_layer(config: Config) -> str | None:
    n_layers = config.count("num_hidden_layers")
    return None if n_layers == 1 else f"{n_layers} layers; llama.cpp's graph has one"


EAGLE3 = Family(
    name="EAGLE-3",
    classes=(
        "LlamaForCausalLMEagle3",
        "Eagle3LlamaForCausalLM",
        "Eagle3Speculator",
        "Eagle3DraftModel",
    ),
    arch="eagle3",
    is_beside=True,
    reads=LayerReader(kind="fused rows", layers=_layers, n_layers=N_FUSED),
    rules=(
        Rule("token_embd.weight", "embed_tokens.weight", "vocab,embd", maybe=True),
        Rule("output_norm.weight", "norm.weight", "embd"),
        Rule("output.weight", "lm_head.weight", "draft,embd", maybe=True),
        Rule("fc.weight", "fc.weight", "embd,fused"),
        Rule("enc.output_norm.weight", "input_norm.weight", "fused", when="normed"),
    ),
    layer_rules=union(
        norms(),
        (Rule("blk.{i}.attn_norm_2.weight", "{L}.hidden_norm.weight", "embd"),),
        attention(interleaved("n_head"), interleaved("n_kv"), width="2embd"),
        dense_ffn(),
    ),
    layer_prefix="midlayer",
    renames=(("model.", ""), ("layers.0.", "midlayer.")),
    ignored=("t2d",),
    metadata=_metadata,
    dims=_dims,
    kinds=_kinds,
    extra=_rope,
    ropes=SCALED | {LLAMA3},
    accepts=_one_layer,
    claims=_is_named_llama,
    notes="a drafter for one target, whose tokenizer its file takes over",
)


FAMILIES = (EAGLE3,)
