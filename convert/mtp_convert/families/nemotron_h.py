"""Nemotron-H with experts: Mamba-2, attention and expert layers, and one reused head.

A layer is one of the three kinds, each with a single norm. The head is stored as two layers, an
attention and an expert one, which llama.cpp holds in one block; its last norm is a LayerNorm.
Attention has no positions, so the order of rows within a head is free; llama.cpp's converter
re-orders them like Llama's, and so does this one.
"""

from __future__ import annotations

from typing import Any

from mtp_convert.families.common import common_metadata, union
from mtp_convert.families.graph import SQUARED_RELU
from mtp_convert.families.rules import Config, Dims, Family, Heads, Rule
from mtp_convert.families.transforms import (
    interleaved,
    minus_exp,
    shaped,
    squeezed,
    stacked,
    then,
)  # fmt: skip

_LETTERS = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
_WORDS = {"linear_attention": "mamba", "full_attention": "attention"}


def _pattern(config: Config) -> list[str]:
    """The kind of each layer of the target."""
    found = config.find("hybrid_override_pattern", "layers_block_type", "layer_types")
    if isinstance(found, str):
        return [_LETTERS[letter] for letter in found]
    return [_WORDS.get(word, word) for word in found or []]


def _kinds(config: Config, i: int) -> frozenset[str]:
    pattern = _pattern(config)
    return frozenset({pattern[i], "target"} if i < len(pattern) else {"head"})


def _dims(config: Config, i: int) -> Dims:
    n_head, width = config.count("num_attention_heads"), config.count("head_dim")
    n_kv, embd = config.count("num_key_value_heads"), config.count("hidden_size")
    heads, groups = config.count("mamba_num_heads"), config.count("n_groups")
    inner = heads * config.count("mamba_head_dim")
    states = 2 * groups * config.count("ssm_state_size")
    return {
        "vocab": config.count("vocab_size"), "embd": embd, "2embd": 2 * embd, "n_head": n_head,
        "n_kv": n_kv, "q": n_head * width, "kv": n_kv * width, "heads": heads, "one": 1,
        "groups": groups, "inner": inner, "each": inner // max(groups, 1),
        "conv": inner + states, "in": 2 * inner + states + heads,
        "kernel": config.count("conv_kernel"), "experts": config.count("n_routed_experts"),
        "ff_exp": config.count("moe_intermediate_size"),
        "ff_shexp": config.count("moe_shared_expert_intermediate_size"),
        "latent": config.count("moe_latent_size", default=embd),
    }  # fmt: skip


def _accepts(config: Config) -> str | None:
    if not config.find("n_routed_experts") or not config.find("num_experts_per_tok"):
        return "a Nemotron-H without experts; it has no heads, and this converter knows no others"
    if len(_pattern(config)) != config.count("num_hidden_layers"):
        return f"a pattern of {len(_pattern(config))} layers"
    return None


def _metadata(config: Config, n_heads: int) -> dict[str, Any]:
    dims = _dims(config, 0)
    layers = [*_pattern(config), *["both"] * n_heads]
    return {
        **common_metadata(config, n_heads),
        "{arch}.context_length": 1 << 20,  # no positions: as far as memory goes
        "{arch}.vocab_size": dims["vocab"],
        "{arch}.rope.dimension_count": config.count("head_dim"),
        "{arch}.rope.scaling.finetuned": False,
        "{arch}.attention.layer_norm_epsilon": config.number("layer_norm_epsilon", default=1e-5),
        "{arch}.attention.layer_norm_rms_epsilon": config.number(
            "rms_norm_eps", "norm_eps", "layer_norm_epsilon", default=1e-5
        ),
        "{arch}.attention.head_count_kv": [
            dims["n_kv"] if kind in ("attention", "both") else 0 for kind in layers
        ],
        "{arch}.feed_forward_length": [
            dims["ff_exp"] if kind in ("moe", "both") else 0 for kind in layers
        ],
        "{arch}.ssm.conv_kernel": dims["kernel"],
        "{arch}.ssm.state_size": config.count("ssm_state_size"),
        "{arch}.ssm.group_count": dims["groups"],
        "{arch}.ssm.inner_size": dims["inner"],
        "{arch}.ssm.time_step_rank": dims["heads"],
        "{arch}.expert_feed_forward_length": dims["ff_exp"],
        "{arch}.expert_shared_feed_forward_length": dims["ff_shexp"],
        "{arch}.expert_shared_count": config.count("n_shared_experts"),
        "{arch}.expert_weights_norm": config.flag("norm_topk_prob") is not False,
        "{arch}.expert_weights_scale": config.number("routed_scaling_factor", default=1.0),
        "{arch}.moe_latent_size": config.whole("moe_latent_size"),
    }


_M = "{L}.mixer."
_MAMBA = (
    Rule("blk.{i}.ssm_in.weight", _M + "in_proj.weight", "in,embd", when="mamba"),
    Rule("blk.{i}.ssm_conv1d.weight", _M + "conv1d.weight", "conv,kernel", squeezed, "mamba"),
    Rule("blk.{i}.ssm_conv1d.bias", _M + "conv1d.bias", "conv", when="mamba", maybe=True),
    Rule("blk.{i}.ssm_dt.bias", _M + "dt_bias", "heads", when="mamba"),
    Rule("blk.{i}.ssm_a", _M + "A_log", "heads,one", then(minus_exp, shaped("heads", "one")),
         "mamba"),
    Rule("blk.{i}.ssm_d", _M + "D", "heads,one", shaped("heads", "one"), "mamba"),
    Rule("blk.{i}.ssm_norm.weight", _M + "norm.weight", "groups,each", shaped("groups", "each"),
         "mamba"),
    Rule("blk.{i}.ssm_out.weight", _M + "out_proj.weight", "embd,inner", when="mamba"),
)  # fmt: skip


def _attention(mixer: str, when: str) -> tuple[Rule, ...]:
    q_how, k_how = interleaved("n_head"), interleaved("n_kv")
    return (
        Rule("blk.{i}.attn_q.weight", mixer + "q_proj.weight", "q,embd", q_how, when),
        Rule("blk.{i}.attn_k.weight", mixer + "k_proj.weight", "kv,embd", k_how, when),
        Rule("blk.{i}.attn_v.weight", mixer + "v_proj.weight", "kv,embd", when=when),
        Rule("blk.{i}.attn_output.weight", mixer + "o_proj.weight", "embd,q", when=when),
    )  # fmt: skip


def _experts(mixer: str, when: str) -> tuple[Rule, ...]:
    """Without gates; a latent width where config.json has one."""
    up, down = "blk.{i}.ffn_up_exps.weight", "blk.{i}.ffn_down_exps.weight"
    wide, tall, m, e = "experts,ff_exp,latent", "experts,latent,ff_exp", mixer, mixer + "experts."
    return (
        Rule("blk.{i}.ffn_gate_inp.weight", m + "gate.weight", "experts,embd", when=when),
        Rule("blk.{i}.exp_probs_b.bias", m + "gate.e_score_correction_bias", "experts", when=when),
        Rule(up, e + "{e}.up_proj.weight", wide, stacked, when),
        Rule(up, e + "up_proj", wide, when=when),
        Rule(down, e + "{e}.down_proj.weight", tall, stacked, when),
        Rule(down, e + "down_proj", tall, when=when),
        Rule("blk.{i}.ffn_up_shexp.weight", m + "shared_experts.up_proj.weight", "ff_shexp,embd",
             when=when),
        Rule("blk.{i}.ffn_down_shexp.weight", m + "shared_experts.down_proj.weight",
             "embd,ff_shexp", when=when),
        Rule("blk.{i}.ffn_latent_down.weight", m + "fc1_latent_proj.weight", "latent,embd",
             when=when, maybe=True),
        Rule("blk.{i}.ffn_latent_up.weight", m + "fc2_latent_proj.weight", "embd,latent",
             when=when, maybe=True),
    )  # fmt: skip


_HEAD = (
    Rule("blk.{i}.nextn.eh_proj.weight", "{L}.layers.0.eh_proj.weight", "embd,2embd"),
    Rule("blk.{i}.nextn.enorm.weight", "{L}.layers.0.enorm.weight", "embd"),
    Rule("blk.{i}.nextn.hnorm.weight", "{L}.layers.0.hnorm.weight", "embd"),
    Rule("blk.{i}.attn_norm.weight", "{L}.layers.0.norm.weight", "embd"),
    Rule("blk.{i}.post_attention_norm.weight", "{L}.layers.1.norm.weight", "embd"),
    Rule("blk.{i}.nextn.shared_head_norm.weight", "{L}.layers.1.final_layernorm.weight", "embd"),
)

NEMOTRON_H = Family(
    name="Nemotron-H",
    classes=("NemotronHForCausalLM",),
    arch="nemotron_h_moe",
    rules=(
        Rule("token_embd.weight", "backbone.embeddings.weight", "vocab,embd"),
        Rule("output_norm.weight", "backbone.norm_f.weight", "embd"),
        Rule("output.weight", "lm_head.weight", "vocab,embd", maybe=True),
    ),
    layer_rules=union(
        (Rule("blk.{i}.attn_norm.weight", "{L}.norm.weight", "embd", when="target"),),
        _MAMBA,
        _attention(_M, "attention"),
        _experts(_M, "moe"),
    ),
    metadata=_metadata,
    ropes=None,  # attention without positions
    activations=SQUARED_RELU,
    dims=_dims,
    kinds=_kinds,
    heads=Heads(
        kind="reused",
        prefix="mtp",
        count=("num_nextn_predict_layers",),
        rules=union(
            _HEAD,
            _attention("{L}.layers.0.mixer.", "head"),
            _experts("{L}.layers.1.mixer.", "head"),
        ),
        memory="hybrid",
    ),
    layer_prefix="backbone.layers.{i}",
    renames=(
        ("model.layers.", "backbone.layers."),
        ("model.embeddings.", "backbone.embeddings."),
        ("model.norm_f.", "backbone.norm_f."),
        ("e_score_correction.bias", "e_score_correction_bias"),
    ),
    accepts=_accepts,
)

FAMILIES = (NEMOTRON_H,)
