"""Plain numpy forwards of MTP heads, from the checkpoint's own tensors and conventions.

Written after the papers and the published modelling code (DeepSeek-V3, arXiv:2412.19437, section
2.2; transformers' layers for GLM-4.5, Qwen3.5, MiMo-V2, Hy3 and Step-3.7): whole matrices, float32,
no cache. Knows nothing of GGUF or of the converter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.convert.checkpoints import Tiny
from tests.convert.expectation import dequantized, text_config

Floats = npt.NDArray[Any]


class Head:
    """One head of a tiny checkpoint: its tensors by short name, and the config."""

    def __init__(self, tiny: Tiny, layer: str) -> None:
        self.all: Mapping[str, Floats] = dequantized(tiny)
        self.config: dict[str, Any] = text_config(tiny)
        self.layer = layer
        keys = ("rms_norm_eps", "layernorm_epsilon", "layer_norm_eps", "layer_norm_epsilon")
        self.eps = float(next(self.config[key] for key in keys if key in self.config))

    def w(self, name: str) -> Floats:
        return self.all[f"{self.layer}.{name}"]

    def norm(self, x: Floats, weight: Floats) -> Floats:
        scale = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
        return np.asarray(x / scale * weight, np.float32)


def sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)


def mlp(head: Head, name: str, x: Floats) -> Floats:
    gate, up, down = (head.w(f"{name}.{part}_proj.weight") for part in ("gate", "up", "down"))
    g = x @ gate.T
    out: Floats = (g * sigmoid(g) * (x @ up.T)) @ down.T
    return out


_DEEPSEEK = ("gate.weight", "gate.e_score_correction_bias", "shared_experts")
_HY3 = ("router.gate.weight", "expert_bias", "shared_mlp")


def experts(head: Head, x: Floats, names: tuple[str, str, str], scale: float) -> Floats:
    """Sigmoid scores; the bias takes part in choosing only; chosen scores sum to one, scaled.

    names: of the router, its bias and the shared expert
    """
    router, bias, shared = names
    scores = sigmoid(x @ head.w(f"mlp.{router}").T)
    biased = scores + head.w(f"mlp.{bias}")
    out = mlp(head, f"mlp.{shared}", x)
    for row in range(len(x)):
        chosen = np.argsort(-biased[row])[: head.config["num_experts_per_tok"]]
        weights = scores[row, chosen] / scores[row, chosen].sum()
        for expert, weight in zip(chosen, weights, strict=True):
            y = mlp(head, f"mlp.experts.{expert}", x[row : row + 1])[0]
            out[row] += scale * weight * y
    return out


def rope_halves(x: Floats, theta: float, n_rotary: int) -> Floats:
    """Rotate the first n_rotary values of (n, heads, width); pairs are i and i + n_rotary / 2."""
    half = n_rotary // 2
    angles = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b, rest = x[..., :half], x[..., half:n_rotary], x[..., n_rotary:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1, dtype=np.float32)


def attend(
    q: Floats, k: Floats, v: Floats, scale: float, window: int = 1 << 30, sink: Floats | None = None
) -> Floats:
    """Causal attention: q (n, heads, d), k and v (n, kv heads, ...); returns (n, heads * dv)."""
    n, n_head = q.shape[:2]
    out = np.zeros((n, n_head, v.shape[-1]), np.float32)
    group = n_head // k.shape[1]
    for h in range(n_head):
        for i in range(n):
            first = max(0, i - window + 1)
            logits = k[first : i + 1, h // group] @ q[i, h] * scale
            top = max(float(logits.max()), -1e30 if sink is None else float(sink[h]))
            weights = np.exp(logits - top)
            total = weights.sum() + (0 if sink is None else math.exp(float(sink[h]) - top))
            out[i, h] = weights / total @ v[first : i + 1, h // group]
    return out.reshape(n, -1)


def split(x: Floats, n_head: int) -> Floats:
    return x.reshape(len(x), n_head, -1)


def joined(head: Head, embed: Floats, tokens: list[int], hidden: Floats, around: float,
           names: tuple[Floats, Floats, Floats]) -> Floats:  # fmt: skip
    """[norm(embedding); norm(hidden)] through the projection that joins them."""
    enorm, hnorm, projection = names
    e = head.norm(embed[tokens], enorm + around)
    h = head.norm(hidden, hnorm + around)
    return np.concatenate([e, h], axis=1) @ projection.T


def qwen35_head(tiny: Tiny, tokens: list[int], hidden: Floats, around: str = "model") -> Floats:
    """Logits (n, n_vocab). Norms are stored around zero; q comes with a gate for each head."""
    head = Head(tiny, "mtp.layers.0")
    embed, config = head.all[f"{around}.embed_tokens.weight"], head.config
    names = ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "fc")
    parts = [head.all[f"mtp.{name}.weight"] for name in names]
    x = joined(head, embed, tokens, hidden, 1.0, (parts[0], parts[1], parts[2]))
    n_head, n_kv = config["num_attention_heads"], config["num_key_value_heads"]
    y = head.norm(x, head.w("input_layernorm.weight") + 1)
    both = split(y @ head.w("self_attn.q_proj.weight").T, n_head)
    q, gate = np.split(both, 2, axis=-1)
    k = split(y @ head.w("self_attn.k_proj.weight").T, n_kv)
    v = split(y @ head.w("self_attn.v_proj.weight").T, n_kv)
    rope = config["rope_parameters"]
    width = q.shape[-1]
    n_rotary = int(width * rope["partial_rotary_factor"])
    q = rope_halves(
        head.norm(q, head.w("self_attn.q_norm.weight") + 1), rope["rope_theta"], n_rotary
    )
    k = rope_halves(
        head.norm(k, head.w("self_attn.k_norm.weight") + 1), rope["rope_theta"], n_rotary
    )
    out: Floats = attend(q, k, v, width**-0.5) * sigmoid(gate.reshape(len(x), -1))
    x = x + out @ head.w("self_attn.o_proj.weight").T
    x = x + mlp(head, "mlp", head.norm(x, head.w("post_attention_layernorm.weight") + 1))
    output = embed if config["tie_word_embeddings"] else head.all["lm_head.weight"]
    return head.norm(x, head.all["mtp.norm.weight"] + 1) @ output.T


def qwen38_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    """The same beside a vision tower, with an output matrix of its own."""
    return qwen35_head(tiny, tokens, hidden, "model.language_model")


def _deepseek_input(head: Head, tokens: list[int], hidden: Floats) -> Floats:
    names = (head.w("enorm.weight"), head.w("hnorm.weight"), head.w("eh_proj.weight"))
    return joined(head, head.w("embed_tokens.weight"), tokens, hidden, 0.0, names)


def _deepseek_output(head: Head, x: Floats) -> Floats:
    scale = head.config["routed_scaling_factor"]
    y = head.norm(x, head.w("post_attention_layernorm.weight"))
    x = x + experts(head, y, _DEEPSEEK, scale)
    return head.norm(x, head.w("shared_head.norm.weight")) @ head.w("shared_head.head.weight").T


def glm4moe_head(
    tiny: Tiny, tokens: list[int], hidden: Floats, around: str = "model", has_norms: bool = True
) -> Floats:
    """Biases on q, k and v, norms of q and k where it has them, half of each head rotated."""
    config = text_config(tiny)
    head = Head(tiny, f"{around}.layers.{config['num_hidden_layers']}")
    x = _deepseek_input(head, tokens, hidden)
    y = head.norm(x, head.w("input_layernorm.weight"))

    def project(name: str, n_head: int) -> Floats:
        a = f"self_attn.{name}_proj."
        return split(y @ head.w(a + "weight").T + head.w(a + "bias"), n_head)

    n_head, n_kv = config["num_attention_heads"], config["num_key_value_heads"]
    q, k, v = project("q", n_head), project("k", n_kv), project("v", n_kv)
    if has_norms:
        q = head.norm(q, head.w("self_attn.q_norm.weight"))
        k = head.norm(k, head.w("self_attn.k_norm.weight"))
    n_rotary = int(config["head_dim"] * config["partial_rotary_factor"])
    q, k = (rope_halves(t, config["rope_theta"], n_rotary) for t in (q, k))
    out = attend(q, k, v, config["head_dim"] ** -0.5)
    return _deepseek_output(head, x + out @ head.w("self_attn.o_proj.weight").T)


def glm4v_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    """With text all three positions of a row are the same, and sections turn nothing otherwise."""
    return glm4moe_head(tiny, tokens, hidden, "model.language_model", has_norms=False)


def hy3_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    """Norms of q and k, all of each head rotated, the target's embedding and output."""
    head = Head(tiny, f"model.layers.{tiny.config['num_hidden_layers']}")
    config = head.config
    names = (head.w("enorm.weight"), head.w("hnorm.weight"), head.w("eh_proj.weight"))
    x = joined(head, head.all["model.embed_tokens.weight"], tokens, hidden, 0.0, names)
    y = head.norm(x, head.w("input_layernorm.weight"))
    n_kv, width = config["num_key_value_heads"], config["head_dim"]
    q = split(y @ head.w("self_attn.q_proj.weight").T, config["num_attention_heads"])
    k, v = (split(y @ head.w(f"self_attn.{part}_proj.weight").T, n_kv) for part in "kv")
    q = head.norm(q, head.w("self_attn.q_norm.weight"))
    k = head.norm(k, head.w("self_attn.k_norm.weight"))
    q, k = (rope_halves(t, config["rope_theta"], width) for t in (q, k))
    x = x + attend(q, k, v, width**-0.5) @ head.w("self_attn.o_proj.weight").T
    y = head.norm(x, head.w("post_attention_layernorm.weight"))
    x = x + experts(head, y, _HY3, config["router_scaling_factor"])
    return head.norm(x, head.w("final_layernorm.weight")) @ head.all["lm_head.weight"].T


def yarn_frequencies(config: Mapping[str, Any]) -> Floats:
    """DeepSeek's yarn: low frequencies are stretched, high ones kept, a ramp between."""
    n, theta, scaling = config["qk_rope_head_dim"], config["rope_theta"], config["rope_scaling"]
    plain = theta ** (-np.arange(0, n, 2) / n)
    original = scaling["original_max_position_embeddings"]

    def dimension(rotations: float) -> float:
        return float(n * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta)))

    low = max(math.floor(dimension(scaling["beta_fast"])), 0)
    high = min(math.ceil(dimension(scaling["beta_slow"])), n - 1)
    ramp = np.clip((np.arange(n // 2) - low) / max(high - low, 0.001), 0, 1)
    stretched = plain / scaling["factor"]
    return np.asarray(plain * (1 - ramp) + stretched * ramp, np.float32)


def rope_pairs(x: Floats, frequencies: Floats) -> Floats:
    """Rotate (n, heads, width) with neighbours as pairs."""
    angles = np.arange(len(x))[:, None] * frequencies
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    found = np.empty_like(x)
    found[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    found[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return found


def glm5_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    """Over all keys: the head chooses none."""
    n, theta = tiny.config["qk_rope_head_dim"], tiny.config["rope_theta"]
    return _latent_head(tiny, tokens, hidden, theta ** (-np.arange(0, n, 2) / n), 1.0)


def deepseek3_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    scaling = tiny.config["rope_scaling"]
    mscale = 0.1 * float(scaling["mscale_all_dim"]) * math.log(scaling["factor"]) + 1
    return _latent_head(tiny, tokens, hidden, yarn_frequencies(tiny.config), mscale)


def _latent_head(
    tiny: Tiny, tokens: list[int], hidden: Floats, frequencies: Floats, mscale: float
) -> Floats:
    """Latent attention, expanded: keys and values of every head from the shared low-rank row."""
    head = Head(tiny, f"model.layers.{tiny.config['num_hidden_layers']}")
    config = head.config
    n_head, nope, rank = (
        config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "kv_lora_rank")
    )
    x = _deepseek_input(head, tokens, hidden)
    y = head.norm(x, head.w("input_layernorm.weight"))
    a = "self_attn."
    low = head.norm(y @ head.w(a + "q_a_proj.weight").T, head.w(a + "q_a_layernorm.weight"))
    q = split(low @ head.w(a + "q_b_proj.weight").T, n_head)
    both = y @ head.w(a + "kv_a_proj_with_mqa.weight").T
    latent = head.norm(both[:, :rank], head.w(a + "kv_a_layernorm.weight"))
    kv = split(latent @ head.w(a + "kv_b_proj.weight").T, n_head)
    q_rope = rope_pairs(q[..., nope:], frequencies)
    k_rope = rope_pairs(both[:, None, rank:], frequencies)
    q = np.concatenate([q[..., :nope], q_rope], axis=-1)
    k = np.concatenate([kv[..., :nope], np.repeat(k_rope, n_head, axis=1)], axis=-1)
    out = attend(q, k, kv[..., nope:], q.shape[-1] ** -0.5 * mscale**2)
    return _deepseek_output(head, x + out @ head.w(a + "o_proj.weight").T)


def mimo2_head(tiny: Tiny, tokens: list[int], hidden: Floats, number: int) -> tuple[Floats, Floats]:
    """Logits, and the rows for the next head (before the norm).

    A sliding window with sinks, narrow values that are scaled, a dense layer.
    """
    head = Head(tiny, f"model.mtp.layers.{number}")
    config, a = head.config, "self_attn."
    names = (head.w("enorm.weight"), head.w("hnorm.weight"), head.w("eh_proj.weight"))
    x = joined(head, head.all["model.embed_tokens.weight"], tokens, hidden, 0.0, names)
    y = head.norm(x, head.w("input_layernorm.weight"))
    n_kv = config["swa_num_key_value_heads"]
    n_head, width = config["num_attention_heads"], config["head_dim"]
    if config.get("attention_projection_layout") == "fused_qkv":
        cuts = np.cumsum([n_head, n_kv]) * width
        parts = np.split(head.w(a + "qkv_proj.weight"), cuts)
    else:
        parts = [head.w(f"{a}{part}_proj.weight") for part in "qkv"]
    q, k, v = (split(y @ w.T, n) for w, n in zip(parts, (n_head, n_kv, n_kv), strict=True))
    v = v * config["attention_value_scale"]
    n_rotary = int(width * config["partial_rotary_factor"])
    q, k = (rope_halves(t, config["swa_rope_theta"], n_rotary) for t in (q, k))
    sink = head.w(a + "attention_sink_bias")
    window = config["sliding_window_size"] + 1  # so many rows before it, and the row itself
    out = attend(q, k, v, width**-0.5, window, sink)
    x = x + out @ head.w(a + "o_proj.weight").T
    x = x + mlp(head, "mlp", head.norm(x, head.w("pre_mlp_layernorm.weight")))
    logits = head.norm(x, head.w("final_layernorm.weight")) @ head.all["lm_head.weight"].T
    return logits, x


def step37_head(
    tiny: Tiny, tokens: list[int], hidden: Floats, number: int
) -> tuple[Floats, Floats]:
    """Logits, and the rows for the next head (before the norm).

    Norms around zero, a sliding window, a gate on each head, an output matrix of its own.
    """
    config = text_config(tiny)
    head, a = Head(tiny, f"model.layers.{config['num_hidden_layers'] + number}"), "self_attn."
    names = (head.w("enorm.weight"), head.w("hnorm.weight"), head.w("eh_proj.weight"))
    x = joined(head, head.all["model.embed_tokens.weight"], tokens, hidden, 1.0, names)
    y = head.norm(x, head.w("input_layernorm.weight") + 1)
    n_head = config["attention_other_setting"]["num_attention_heads"]
    n_kv, width = config["attention_other_setting"]["num_attention_groups"], config["head_dim"]
    q = split(y @ head.w(a + "q_proj.weight").T, n_head)
    k, v = (split(y @ head.w(f"{a}{part}_proj.weight").T, n_kv) for part in "kv")
    q = head.norm(q, head.w(a + "q_norm.weight") + 1)
    k = head.norm(k, head.w(a + "k_norm.weight") + 1)
    q, k = (rope_halves(t, config["rope_theta"][-1], width) for t in (q, k))
    out = split(attend(q, k, v, width**-0.5, config["sliding_window"]), n_head)
    gate = sigmoid(y @ head.w(a + "g_proj.weight").T)
    x = x + (out * gate[..., None]).reshape(len(x), -1) @ head.w(a + "o_proj.weight").T
    x = x + mlp(head, "mlp", head.norm(x, head.w("post_attention_layernorm.weight") + 1))
    normed = head.norm(x, head.w("transformer.shared_head.norm.weight") + 1)
    return normed @ head.w("transformer.shared_head.output.weight").T, x
