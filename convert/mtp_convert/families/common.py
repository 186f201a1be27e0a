"""Tables that families share: the usual names of a decoder layer, the usual keys of a config.

Knows nothing of any one family; a family takes the groups it has and adds its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtp_cli.errors import MtpError
from mtp_convert.families.rope import rope_metadata
from mtp_convert.families.rules import Config, Dims, Rule, Transform, copy
from mtp_convert.families.transforms import expert_half, stacked


def target(norm: Transform = copy) -> tuple[Rule, ...]:
    """Embedding, final norm and output of the target."""
    return (
        Rule("token_embd.weight", "model.embed_tokens.weight", "vocab,embd"),
        Rule("output_norm.weight", "model.norm.weight", "embd", norm),
        Rule("output.weight", "lm_head.weight", "vocab,embd", maybe=True),
    )


def target_with_output(norm: Transform = copy) -> tuple[Rule, ...]:
    """The same, with an output matrix even where the checkpoint ties it: some graphs want one."""
    tied = Rule("output.weight", "model.embed_tokens.weight", "vocab,embd")
    return (*target(norm), tied)


def norms(post: str = "ffn_norm", norm: Transform = copy) -> tuple[Rule, ...]:
    """The two norms of a layer; `post` is what GGUF calls the second."""
    return (
        Rule("blk.{i}.attn_norm.weight", "{L}.input_layernorm.weight", "embd", norm),
        Rule(f"blk.{{i}}.{post}.weight", "{L}.post_attention_layernorm.weight", "embd", norm),
    )


def attention(
    q_how: Transform = copy,
    k_how: Transform = copy,
    when: str = "",
    q_shape: str = "q",
    output_bias: bool = False,
    width: str = "embd",
) -> tuple[Rule, ...]:
    """Separate q, k, v, o with optional biases; of the output's few graphs know.

    width: of the rows that q, k and v are made from
    """
    a = "{L}.self_attn."
    output = Rule("blk.{i}.attn_output.bias", a + "o_proj.bias", "embd", when=when, maybe=True)
    return (
        Rule("blk.{i}.attn_q.weight", a + "q_proj.weight", f"{q_shape},{width}", q_how, when),
        Rule("blk.{i}.attn_k.weight", a + "k_proj.weight", f"k,{width}", k_how, when),
        Rule("blk.{i}.attn_v.weight", a + "v_proj.weight", f"v,{width}", when=when),
        Rule("blk.{i}.attn_output.weight", a + "o_proj.weight", "embd,o", when=when),
        Rule("blk.{i}.attn_q.bias", a + "q_proj.bias", q_shape, q_how, when, maybe=True),
        Rule("blk.{i}.attn_k.bias", a + "k_proj.bias", "k", k_how, when, maybe=True),
        Rule("blk.{i}.attn_v.bias", a + "v_proj.bias", "v", when=when, maybe=True),
        *((output,) if output_bias else ()),
    )  # fmt: skip


def qk_norms(norm: Transform = copy, when: str = "", maybe: bool = False) -> tuple[Rule, ...]:
    a = "{L}.self_attn."
    return (
        Rule("blk.{i}.attn_q_norm.weight", a + "q_norm.weight", "head_dim", norm, when, maybe),
        Rule("blk.{i}.attn_k_norm.weight", a + "k_norm.weight", "head_dim", norm, when, maybe),
    )


def dense_ffn(when: str = "", gguf: str = "", hf: str = "mlp", ff: str = "ff") -> tuple[Rule, ...]:
    """Gate, up and down; with gguf="_shexp" the shared expert's."""
    return tuple(
        Rule(f"blk.{{i}}.ffn_{part}{gguf}.weight", f"{{L}}.{hf}.{part}_proj.weight", shape,
             when=when)
        for part, shape in (("gate", f"{ff},embd"), ("up", f"{ff},embd"), ("down", f"embd,{ff}"))
    )  # fmt: skip


def ffn_biases() -> tuple[Rule, ...]:
    """Of a dense network, where a checkpoint has them."""
    return tuple(
        Rule(f"blk.{{i}}.ffn_{part}.bias", f"{{L}}.mlp.{part}_proj.bias", shape, maybe=True)
        for part, shape in (("gate", "ff"), ("up", "ff"), ("down", "embd"))
    )


def experts(when: str = "moe", hf: str = "mlp.experts") -> tuple[Rule, ...]:
    """Routed experts, stored one by one or fused (transformers 5 writes some fused)."""
    one = "{L}." + hf + ".{e}."
    all_ = "{L}." + hf + "."
    gate, up, down = (f"blk.{{i}}.ffn_{part}_exps.weight" for part in ("gate", "up", "down"))
    wide, tall = "experts,ff_exp,embd", "experts,embd,ff_exp"
    return (
        Rule(gate, one + "gate_proj.weight", wide, stacked, when),
        Rule(gate, all_ + "gate_up_proj", wide, expert_half(0), when),
        Rule(up, one + "up_proj.weight", wide, stacked, when),
        Rule(up, all_ + "gate_up_proj", wide, expert_half(1), when),
        Rule(down, one + "down_proj.weight", tall, stacked, when),
        Rule(down, all_ + "down_proj", tall, when=when),
    )


def router(when: str = "moe", bias: bool = True, maybe_bias: bool = False) -> tuple[Rule, ...]:
    weight = Rule("blk.{i}.ffn_gate_inp.weight", "{L}.mlp.gate.weight", "experts,embd", when=when)
    correction = Rule(
        "blk.{i}.exp_probs_b.bias", "{L}.mlp.gate.e_score_correction_bias", "experts",
        when=when, maybe=maybe_bias,
    )  # fmt: skip
    return (weight, correction) if bias else (weight,)


def nextn(norm: Transform = copy, prefix: str = "{L}.") -> tuple[Rule, ...]:
    """The tensors of a DeepSeek-style head beside its layer's."""
    p = prefix
    return (
        Rule("blk.{i}.nextn.eh_proj.weight", p + "eh_proj.weight", "embd,2embd"),
        Rule("blk.{i}.nextn.enorm.weight", p + "enorm.weight", "embd", norm),
        Rule("blk.{i}.nextn.hnorm.weight", p + "hnorm.weight", "embd", norm),
        Rule("blk.{i}.nextn.embed_tokens.weight", p + "embed_tokens.weight", "vocab,embd",
             maybe=True),
        Rule("blk.{i}.nextn.shared_head_head.weight", p + "shared_head.head.weight", "vocab,embd",
             maybe=True),
        Rule("blk.{i}.nextn.shared_head_norm.weight", p + "shared_head.norm.weight", "embd", norm,
             maybe=True),
    )  # fmt: skip


def head_dim(config: Config) -> int:
    """Explicit, or the width divided among the heads."""
    n_head = config.count("num_attention_heads")
    return config.count("head_dim", default=config.count("hidden_size") // max(1, n_head))


def common_dims(config: Config, i: int) -> dict[str, int]:
    """Sizes of a Llama-shaped layer."""
    n_head = config.count("num_attention_heads")
    n_kv = config.count("num_key_value_heads", default=n_head)
    width, embd = head_dim(config), config.count("hidden_size")
    return {
        "vocab": config.count("vocab_size"), "embd": embd, "2embd": 2 * embd,
        "ff": config.count("intermediate_size", default=0), "n_head": n_head, "n_kv": n_kv,
        "head_dim": width, "q": n_head * width, "k": n_kv * width, "v": n_kv * width,
        "o": n_head * width,
    }  # fmt: skip


def moe_dims(config: Config, i: int) -> dict[str, int]:
    n_ff = config.count("moe_intermediate_size")
    return {
        **common_dims(config, i),
        "experts": config.count("n_routed_experts", "num_experts", "num_local_experts"),
        "ff_exp": n_ff,
        "ff_shexp": n_ff * config.count("n_shared_experts", default=0),
    }


_GATING = {"softmax": 1, "sigmoid": 2}


def common_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    """The keys of a Llama-shaped decoder; None where the config has no value."""
    n_head = config.count("num_attention_heads")
    scope = config.rope.get("sliding_attention")
    swa_theta = scope.get("rope_theta") if isinstance(scope, dict) else None
    swa_theta = config.find("swa_rope_theta", "rope_local_base_freq", default=swa_theta)
    explicit = config.whole("head_dim")
    score = config.find("scoring_func", "score_function", "moe_router_activation")
    return {
        "{arch}.block_count": config.count("num_hidden_layers") + n_heads,
        "{arch}.context_length": config.whole("max_position_embeddings"),
        "{arch}.embedding_length": config.count("hidden_size"),
        "{arch}.feed_forward_length": config.whole("intermediate_size"),
        "{arch}.attention.head_count": n_head,
        "{arch}.attention.head_count_kv": config.whole("num_key_value_heads"),
        **rope_metadata(config),
        "{arch}.rope.freq_base": config.rope_value("rope_theta"),
        "{arch}.rope.freq_base_swa": None if swa_theta is None else float(swa_theta),
        "{arch}.attention.layer_norm_rms_epsilon": _optional_float(config.find("rms_norm_eps")),
        "{arch}.expert_count": config.whole("num_local_experts", "num_experts", "n_routed_experts"),
        "{arch}.expert_used_count": config.whole("num_experts_per_tok", "top_k_experts"),
        "{arch}.expert_group_count": config.whole("n_group"),
        "{arch}.expert_group_used_count": config.whole("topk_group"),
        "{arch}.expert_gating_func": _GATING.get(score) if isinstance(score, str) else None,
        "{arch}.attention.key_length": explicit,
        "{arch}.attention.value_length": explicit,
        "{arch}.nextn_predict_layers": n_heads or None,
    }


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)


def moe_metadata(config: Config, n_heads: int) -> dict[str, Any]:
    """The keys that DeepSeek-style experts add."""
    return {
        "{arch}.expert_feed_forward_length": config.count("moe_intermediate_size"),
        "{arch}.expert_shared_count": config.whole("n_shared_experts"),
        "{arch}.leading_dense_block_count": leading_dense(config),
        "{arch}.expert_weights_scale": _optional_float(config.find("routed_scaling_factor")),
        "{arch}.expert_weights_norm": config.flag("norm_topk_prob"),
    }


def union(*parts: Sequence[Rule]) -> tuple[Rule, ...]:
    return tuple(rule for part in parts for rule in part)


def dense_until_first_k(config: Config, i: int) -> frozenset[str]:
    """DeepSeek's layout: the first layers are dense, the rest have experts."""
    return frozenset({"dense" if i < (leading_dense(config) or 0) else "moe"})


def leading_dense(config: Config) -> int | None:
    """How many layers come before the first with experts; None where the config does not say."""
    if config.find("first_k_dense_replace") is not None:
        return config.count("first_k_dense_replace")
    kinds = mlp_kinds(config)
    if kinds is None:
        return None
    first = kinds.index(True) if True in kinds else len(kinds)
    if not all(kinds[first:]):
        raise MtpError(
            f"{config.where}: mlp_layer_types: dense layers behind one with experts; llama.cpp "
            "takes them in front only"
        )
    return first


def mlp_kinds(config: Config) -> list[bool] | None:
    """transformers 5's list of layers: which of them have experts; None where there is none."""
    if config.find("mlp_layer_types") is None:
        return None
    kinds = config.per_layer("mlp_layer_types", config.count("num_hidden_layers"))
    unknown = [kind for kind in kinds if kind not in ("dense", "sparse")]
    if unknown:
        raise MtpError(f"{config.where}: mlp_layer_types: {str(unknown[0])[:40]}")
    return [kind == "sparse" for kind in kinds]


def with_kind(dims: Dims, **more: int) -> dict[str, int]:
    return {**dims, **more}
