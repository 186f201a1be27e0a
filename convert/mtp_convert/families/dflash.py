"""DFlash and DSpark drafters (arXiv:2602.06036): layers that draft a whole block in one pass.

Rows of several layers of the target become keys and values of the drafter's layers, in which masked
ids attend to them and to each other. DFlash 2 adds convolutions and chooses among candidates;
DSpark adds a low-rank matrix that says what follows an id, and what a draft is worth. The authors,
SpecForge and DeepSpec publish flat configs, speculators nests the layers' own. All leave out the
tokenizer, which is the target's (`commands/drafter.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtp_convert.families.common import (
    attention,
    common_dims,
    common_metadata,
    dense_ffn,
    head_dim,
    norms,
    qk_norms,
    union,
)
from mtp_convert.families.rope import LLAMA3, SCALED, full_scope, llama3_rope
from mtp_convert.families.rules import (
    MASK,
    Config,
    Dims,
    Family,
    LayerReader,
    Rule,
    Transform,
    copy,
)
from mtp_convert.families.transforms import picked
from mtp_convert.tensors.sources import Source, Whole

KIND = "fused rows, a block at once"
_BLOCK = 16  # ids of a block where a config does not say, as llama.cpp takes it
RANK = 256  # of DSpark's matrices where a config does not say, as DeepSpec takes it
_NESTED = "dflash_config"
_AUX = "aux_hidden_state_layer_ids"  # speculators' name: layers whose input is read
_IDS = "target_layer_ids"  # the others' name: layers whose output is read
# Numbers that a drafter takes over from its target, by GGUF's name.
_SCALES = {
    "attention.value_scale": "attention_value_scale",
    "logit_scale": "output_multiplier",
    "embedding_scale": "input_embedding_scale",
}
_CONVOLVED = ("conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k")


def own_part(config: Config) -> Config:
    """The config with the drafter's part on top."""
    nested = config.find(_NESTED, default={})
    return Config({**config.values, **nested}, config.where)


def layers_of(config: Config, n_layers: int = 0) -> list[int]:
    """Layers of the target whose input rows are read, from 0 on."""
    named = config.find(_NESTED, default={}).get(_IDS)
    if named is None and config.find(_AUX) is not None:
        return list(config.find(_AUX))
    return [layer + 1 for layer in (config.need(_IDS) if named is None else named)]


def _draft_vocab(config: Config) -> int:
    return config.count("draft_vocab_size", default=config.count("vocab_size"))


def block_dims(config: Config, i: int) -> dict[str, int]:
    dims, own = common_dims(config, i), own_part(config)
    kernel, group = (own.count(key, default=0) for key in _CONVOLVED[:2])
    rank = own.count("markov_rank", default=RANK)
    return {
        **dims,
        "row": dims["embd"], "fused": len(layers_of(config)) * dims["embd"], "one": 1, "two": 2,
        "draft": _draft_vocab(config), "pairs": config.flag("rope_is_neox_style") is False,
        "kernel": kernel, "kernels": 2 * kernel * (dims["embd"] // max(1, group)),
        "candidates": own.count("selector_rank", default=0),
        "rank": rank, "judged": dims["embd"] + rank,
    }  # fmt: skip


def block_kinds(config: Config, i: int, rank: int = 0) -> frozenset[str]:
    """rank: of a Markov head where the config says nothing of one."""
    kinds = {"trimmed" if _draft_vocab(config) < config.count("vocab_size") else "whole"}
    if config.flag("has_embed_tokens") is not False:
        kinds.add("embedded")
    if own_part(config).find(_CONVOLVED[0]) is not None:
        kinds.add("convolved")
    if own_part(config).count("markov_rank", default=rank):
        kinds.add("markov")
    return frozenset(kinds)


def block_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    own, scales = own_part(config), {}
    for name, key in _SCALES.items():
        scales[f"{{arch}}.{name}"] = own.number(key) if own.find(key) is not None else None
    cap = own.number("final_logit_softcapping", default=0.0)
    part = full_scope(config).get("partial_rotary_factor", config.find("partial_rotary_factor"))
    return {
        **common_metadata(config, 0),
        "{arch}.rope.dimension_count": None if part is None else int(head_dim(config) * part),
        "{arch}.block_size": own.count("block_size", default=_BLOCK),
        **{f"{{arch}}.{key}": own.whole(key) for key in _CONVOLVED},
        **scales,
        "{arch}.final_logit_softcapping": cap if cap > 0 else None,
        **_windows(config),
        "{arch}.attention.causal": _is_causal(config),
    }


def _is_causal(config: Config) -> bool | None:
    """Whether ids of a block see only those before them."""
    found = config.flag("is_causal")
    return own_part(config).flag("causal") if found is None else found


def _windows(config: Config) -> dict[str, Any]:
    own, n_layers = own_part(config), config.count("num_hidden_layers")
    everywhere = bool(own.flag("use_swa"))
    window = own.whole("swa_window_size") or own.whole("sliding_window")
    if not window or not (everywhere or config.flag("use_sliding_window")):
        return {}
    kinds = [] if everywhere else config.per_layer("layer_types", n_layers)
    slides = [kind == "sliding_attention" for kind in kinds] or [True] * n_layers
    return {
        "{arch}.attention.sliding_window": window,
        "{arch}.attention.sliding_window_pattern": slides,
    }


def of_pair(config: Config, names: Collection[str], has_mrope: bool) -> dict[str, Any]:
    """The id that stands for a place to fill, and the positions of a target with several axes."""
    return {
        MASK: own_part(config).count("mask_token_id"),
        "{arch}.rope.dimension_sections": [head_dim(config) // 2, 0, 0, 0] if has_mrope else None,
    }


def _rope(config: Config) -> dict[str, Source]:
    return llama3_rope(config, head_dim(config))


def accepted(config: Config) -> str | None:
    """One clause for what llama.cpp's graph cannot compute."""
    own, width = own_part(config), config.count("hidden_size")
    head_type = own.find("markov_head_type", default="vanilla")
    if own.find("markov_rank") != 0 and head_type != "vanilla":
        return f"markov_head_type: {str(head_type)[:40]}: llama.cpp computes vanilla only"
    if own.find(_CONVOLVED[0]) is None:
        return None
    _kernel, group, _rank, top_k = (own.count(key) for key in _CONVOLVED)
    if not group or width % group:
        return f"conv_group_size: {group} does not divide the width of {width}"
    if width < top_k * (top_k + 1):
        return f"selector_top_k: {top_k}: its scores do not fit into rows of {width}, for llama.cpp"
    return None


def _halves(sources: Sequence[Source], dims: Dims) -> Source:
    """Rows of each head in rotary halves; those of some checkpoints are in pairs."""
    source, width = sources[0], dims["head_dim"]
    n = source.shape[0]
    if not dims["pairs"] or n % width or width % 2:
        return source
    index = np.arange(n).reshape(-1, width // 2, 2).transpose(0, 2, 1).ravel()
    if len(source.shape) == 1:
        return Whole([source], lambda values: values[index], source.shape)
    return picked(source, index)


def without_biases(q_how: Transform = copy, k_how: Transform = copy) -> tuple[Rule, ...]:
    """q, k, v and o: the graph adds nothing to them, and takes keys for values without a v."""
    rules = [rule for rule in attention(q_how, k_how) if rule.to.endswith(".weight")]
    return tuple(replace(rule, maybe="attn_v" in rule.to) for rule in rules)


def _convolution(part: str, of: str) -> tuple[Rule, ...]:
    to, named = f"blk.{{i}}.{part}_conv_", f"{{L}}.{of}_conv."
    return (
        Rule(to + "base", named + "base_kernel", "two,kernel,embd", when="convolved"),
        Rule(to + "proj.weight", named + "kernel_projection.weight", "kernels,embd",
             when="convolved"),
    )  # fmt: skip


_SINKS = tuple(
    Rule("blk.{i}.attn_sinks.weight", f"{{L}}.self_attn.{name}", "n_head", maybe=True)
    for name in ("attention_sink_bias", "attention_sink_bias.weight", "sinks", "sinks.weight")
)
ROOT = (
    Rule("token_embd.weight", "embed_tokens.weight", "vocab,embd", when="embedded", maybe=True),
    Rule("output_norm.weight", "norm.weight", "embd"),
    Rule("output.weight", "lm_head.weight", "draft,embd", when="trimmed"),
    Rule("fc.weight", "fc.weight", "embd,fused"),
    Rule("enc.output_norm.weight", "hidden_norm.weight", "embd"),
)
SELECTOR = (
    Rule("selector_predecessor.weight", "candidate_selector.predecessor_codebook",
         "vocab,candidates", when="convolved"),
    Rule("selector_successor.weight", "candidate_selector.successor_codebook",
         "vocab,candidates", when="convolved"),
    Rule("selector_hidden.weight", "candidate_selector.hidden_projection.weight",
         "candidates,embd", when="convolved"),
)  # fmt: skip
MARKOV = (
    Rule("markov_w1.weight", "markov_head.markov_w1.weight", "vocab,rank", when="markov"),
    Rule("markov_w2.weight", "markov_head.markov_w2.weight", "draft,rank", when="markov"),
    Rule("conf_proj.weight", "confidence_head.proj.weight", "one,judged", maybe=True),
    Rule("conf_proj.bias", "confidence_head.proj.bias", "one", maybe=True),
)
FULL = Rule("output.weight", "lm_head.weight", "draft,embd", when="whole", maybe=True)

DFLASH = Family(
    name="DFlash",
    classes=("DFlashDraftModel", "DFlash2DraftModel"),
    arch="dflash",
    is_beside=True,
    reads=LayerReader(kind=KIND, layers=layers_of, more=of_pair),
    rules=union(ROOT, (FULL,), SELECTOR, MARKOV),
    layer_rules=union(
        norms(),
        without_biases(_halves, _halves),
        qk_norms(_halves),
        _SINKS,
        dense_ffn(),
        _convolution("attn", "attention"),
        _convolution("ffn", "mlp"),
    ),
    layer_prefix="layers.{i}",
    renames=(("model.", ""),),
    ignored=("t2d", "embed_tokens."),
    metadata=block_metadata,
    dims=block_dims,
    kinds=block_kinds,
    extra=_rope,
    ropes=SCALED | {LLAMA3},
    has_windows=True,
    accepts=accepted,
    notes="a drafter for one target, whose tokenizer its file takes over",
)


def _dspark_kinds(config: Config, i: int) -> frozenset[str]:
    """An output matrix over all ids is the target's, unless the embedding is in the file too."""
    kinds = block_kinds(config, i, RANK)
    is_own = {"whole", "embedded"} <= kinds and not config.flag("tie_word_embeddings")
    return kinds | ({"own"} if is_own else set())


def _of_dspark_pair(config: Config, names: Collection[str], has_mrope: bool) -> dict[str, Any]:
    from_anchor = config.flag("sample_from_anchor")
    if from_anchor is None:  # speculators leave it out, and mean no
        from_anchor = config.find("transformer_layer_config", _AUX) is None
    return {
        **of_pair(config, names, has_mrope),
        "{arch}.sample_from_anchor": from_anchor,
        "{arch}.has_confidence_head": "confidence_head.proj.weight" in names,
    }


DSPARK = replace(
    DFLASH,
    name="DSpark",
    classes=(
        "Qwen3DSparkModel",
        "DSparkDraftModel",
        "DSparkSpeculator",
        "Lfm2DSparkDraftModel",
        "LingDSparkModel",
    ),
    reads=LayerReader(kind=KIND, layers=layers_of, more=_of_dspark_pair),
    rules=union(
        ROOT,
        # Without it llama.cpp would take the embedding for the output.
        (replace(FULL, of=("lm_head.weight", "embed_tokens.weight"), when="own"),),
        SELECTOR,
        MARKOV,
    ),
    ignored=(*DFLASH.ignored, "lm_head."),
    kinds=_dspark_kinds,
)

FAMILIES = (DFLASH, DSPARK)
