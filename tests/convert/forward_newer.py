"""More plain numpy forwards of heads: Ling-3.0, North-Mini-Code, Nemotron-H, DeepSeek-V4.

Written after vLLM's model of the first, SGLang's of the third, transformers' layers of the others.
Knows nothing of GGUF or of the converter.
"""

from __future__ import annotations

import numpy as np

from tests.convert.checkpoints import Tiny
from tests.convert.forward import Floats, Head, attend, joined, mlp, rope_pairs, sigmoid, split


def limited_mlp(head: Head, name: str, x: Floats, limit: float) -> Floats:
    """The gate is cut above once it is activated, the other factor at both ends."""
    gate, up, down = (head.w(f"{name}.{part}_proj.weight") for part in ("gate", "up", "down"))
    g = x @ gate.T
    out: Floats = (np.minimum(g * sigmoid(g), limit) * np.clip(x @ up.T, -limit, limit)) @ down.T
    return out


def _ling_experts(head: Head, x: Floats, limits: tuple[float, float]) -> Floats:
    """Of the groups, those are open whose best two experts have the highest sum; n_group is 2."""
    config = head.config
    scores = sigmoid(x @ head.w("mlp.gate.weight").T)
    biased = scores + head.w("mlp.gate.expert_bias")
    out = limited_mlp(head, "mlp.shared_experts", x, limits[1])
    for row in range(len(x)):
        groups = biased[row].reshape(config["n_group"], -1)
        best = np.sort(groups, axis=1)[:, -2:].sum(axis=1)
        closed = np.argsort(-best)[config["topk_group"] :]
        groups[closed] = -np.inf
        chosen = np.argsort(-groups.ravel())[: config["num_experts_per_tok"]]
        weights = scores[row, chosen] / scores[row, chosen].sum()
        for expert, weight in zip(chosen, weights, strict=True):
            y = limited_mlp(head, f"mlp.experts.{expert}", x[row : row + 1], limits[0])[0]
            out[row] += config["routed_scaling_factor"] * weight * y
    return out


def ling3_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    """Latent attention with a gate for each head, limits, the target's embedding and output."""
    number = tiny.config["num_hidden_layers"]
    head = Head(tiny, f"model.layers.{number}")
    config, a = head.config, "attention."
    names = (head.w("enorm.weight"), head.w("hnorm.weight"), head.w("eh_proj.weight"))
    x = joined(head, head.all["model.word_embeddings.weight"], tokens, hidden, 0.0, names)
    y = head.norm(x, head.w("input_layernorm.weight"))
    n_head, nope, rank = (
        config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "kv_lora_rank")
    )
    n_rotary = config["qk_rope_head_dim"]
    frequencies = config["rope_theta"] ** (-np.arange(0, n_rotary, 2) / n_rotary)
    if config["q_lora_rank"]:
        low = head.norm(y @ head.w(a + "q_a_proj.weight").T, head.w(a + "q_a_layernorm.weight"))
        q = split(low @ head.w(a + "q_b_proj.weight").T, n_head)
    else:
        q = split(y @ head.w(a + "q_proj.weight").T, n_head)
    both = y @ head.w(a + "kv_a_proj_with_mqa.weight").T
    latent = head.norm(both[:, :rank], head.w(a + "kv_a_layernorm.weight"))
    kv = split(latent @ head.w(a + "kv_b_proj.weight").T, n_head)
    q = np.concatenate([q[..., :nope], rope_pairs(q[..., nope:], frequencies)], axis=-1)
    k_rope = rope_pairs(both[:, None, rank:], frequencies)
    k = np.concatenate([kv[..., :nope], np.repeat(k_rope, n_head, axis=1)], axis=-1)
    out = split(attend(q, k, kv[..., nope:], q.shape[-1] ** -0.5), n_head)
    gate = sigmoid(y @ head.w(a + "g_proj.weight").T)
    x = x + (out * gate[..., None]).reshape(len(x), -1) @ head.w(a + "dense.weight").T
    y = head.norm(x, head.w("post_attention_layernorm.weight"))
    limits = (
        config["expert_swiglu_limit_list"][number],
        config["share_expert_swiglu_limit_list"][number],
    )
    x = x + _ling_experts(head, y, limits)
    return head.norm(x, head.w("final_layernorm.weight")) @ head.all["lm_head.weight"].T


class NorthHead(Head):
    """Norms around the mean where config.json has no epsilon for the other kind."""

    def norm(self, x: Floats, weight: Floats) -> Floats:
        if "rms_norm_eps" in self.config:
            return super().norm(x, weight)
        return super().norm(x - x.mean(axis=-1, keepdims=True), weight)


def _north_experts(head: Head, x: Floats) -> Floats:
    """Scores of the chosen as they are; the mean with the shared expert where there is one."""
    scores = sigmoid(x @ head.w("mlp.gate.weight").T)
    out = np.zeros_like(x)
    for row in range(len(x)):
        for expert in np.argsort(-scores[row])[: head.config["num_experts_per_tok"]]:
            y = mlp(head, f"mlp.experts.{expert}", x[row : row + 1])[0]
            out[row] += scores[row, expert] * y
    if not head.config["num_shared_experts"]:
        return out
    return np.asarray((out + mlp(head, "mlp.shared_experts", x)) / 2, np.float32)


def north_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    """Attention to all keys, experts beside it, one norm for both, the target's embedding."""
    config = tiny.config
    head, a = NorthHead(tiny, f"model.layers.{config['num_hidden_layers']}"), "self_attn."
    embed = head.all["model.embed_tokens.weight"]
    names = (head.w("enorm.weight"), head.w("hnorm.weight"), head.w("eh_proj.weight"))
    x = joined(head, embed, tokens, hidden, 0.0, names)
    y = head.norm(x, head.w("input_layernorm.weight"))
    width, n_kv = config["head_dim"], config["num_key_value_heads"]
    frequencies = config["rope_theta"] ** (-np.arange(0, width, 2) / width)
    q = split(y @ head.w(a + "q_proj.weight").T, config["num_attention_heads"])
    k, v = (split(y @ head.w(f"{a}{part}_proj.weight").T, n_kv) for part in "kv")
    q, k = (rope_pairs(t, frequencies) for t in (q, k))
    attended = attend(q, k, v, width**-0.5) @ head.w(a + "o_proj.weight").T
    x = x + attended + _north_experts(head, y)
    scaled = head.norm(x, head.w("shared_head.norm.weight")) * float(config["logit_scale"])
    return np.asarray(scaled @ embed.T, np.float32)


def _squared_relu(head: Head, name: str, x: Floats) -> Floats:
    y = np.maximum(x @ head.w(f"{name}.up_proj.weight").T, 0)
    return np.asarray((y * y) @ head.w(f"{name}.down_proj.weight").T, np.float32)


def nemotron_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> Floats:
    """Attention without positions, then experts without gates.

    The mean is taken off before the last norm, as llama.cpp does and SGLang does not.
    """
    head, config, a = Head(tiny, "mtp.layers"), tiny.config, "0.mixer."
    names = (head.w("0.enorm.weight"), head.w("0.hnorm.weight"), head.w("0.eh_proj.weight"))
    x = joined(head, head.all["backbone.embeddings.weight"], tokens, hidden, 0.0, names)
    y = head.norm(x, head.w("0.norm.weight"))
    q = split(y @ head.w(a + "q_proj.weight").T, config["num_attention_heads"])
    n_kv = config["num_key_value_heads"]
    k, v = (split(y @ head.w(f"{a}{part}_proj.weight").T, n_kv) for part in "kv")
    x = x + attend(q, k, v, config["head_dim"] ** -0.5) @ head.w(a + "o_proj.weight").T
    y, m = head.norm(x, head.w("1.norm.weight")), "1.mixer."
    scores = sigmoid(y @ head.w(m + "gate.weight").T)
    biased = scores + head.w(m + "gate.e_score_correction_bias")
    out = _squared_relu(head, m + "shared_experts", y)
    for row in range(len(x)):
        chosen = np.argsort(-biased[row])[: config["num_experts_per_tok"]]
        weights = scores[row, chosen] / scores[row, chosen].sum()
        for expert, weight in zip(chosen, weights, strict=True):
            own = _squared_relu(head, f"{m}experts.{expert}", y[row : row + 1])[0]
            out[row] += config["routed_scaling_factor"] * weight * own
    x = x + out
    last = head.norm(x - x.mean(axis=-1, keepdims=True), head.w("1.final_layernorm.weight"))
    return np.asarray(last @ head.all["lm_head.weight"].T, np.float32)


def _weighed(head: Head, x: Floats, name: str) -> Floats:
    """What four streams (n, 4, width) say of how they are to be mixed."""
    flat = x.reshape(len(x), -1)
    normed = head.norm(flat, np.ones(flat.shape[1], np.float32))
    return np.asarray(normed @ head.w(name + "_fn").T, np.float32)


def _streams(head: Head, x: Floats, part: str) -> tuple[Floats, Floats, Floats]:
    """Four streams joined (n, width), the weights of what comes back, those of the streams."""
    mixes, eps = _weighed(head, x, f"hc_{part}"), head.config["hc_eps"]
    scale, offset = head.w(f"hc_{part}_scale"), head.w(f"hc_{part}_base")
    pre = sigmoid(mixes[:, :4] * scale[0] + offset[:4]) + eps
    post = 2 * sigmoid(mixes[:, 4:8] * scale[1] + offset[4:8])
    logits = (mixes[:, 8:] * scale[2] + offset[8:]).reshape(-1, 4, 4)  # from, to
    comb = np.exp(logits - logits.max(axis=2, keepdims=True))
    comb = comb / comb.sum(axis=2, keepdims=True) + eps
    comb = comb / (comb.sum(axis=1, keepdims=True) + eps)
    for _ in range(head.config["hc_sinkhorn_iters"] - 1):
        comb = comb / (comb.sum(axis=2, keepdims=True) + eps)
        comb = comb / (comb.sum(axis=1, keepdims=True) + eps)
    return np.einsum("ns,nsd->nd", pre, x), post, comb


def _parted(x: Floats, out: Floats, post: Floats, comb: Floats) -> Floats:
    mixed: Floats = np.einsum("nst,nsd->ntd", comb, x) + post[..., None] * out[:, None]
    return mixed


def _turned(x: Floats, frequencies: Floats) -> Floats:
    """The last values of each head as rotary pairs."""
    n = 2 * len(frequencies)
    return np.concatenate([x[..., :-n], rope_pairs(x[..., -n:], frequencies)], axis=-1)


def _v4_attention(head: Head, y: Floats) -> Floats:
    """One key that is its value, sinks, a window; the output is turned back."""
    config, a = head.config, "attn."
    n_head, width, groups = (config[key] for key in ("num_attention_heads", "head_dim", "o_groups"))
    n = config["qk_rope_head_dim"]
    frequencies = config["rope_theta"] ** (-np.arange(0, n, 2) / n)
    low = head.norm(y @ head.w(a + "wq_a.weight").T, head.w(a + "q_norm.weight"))
    q = split(low @ head.w(a + "wq_b.weight").T, n_head)
    q = _turned(head.norm(q, np.ones(width, np.float32)), frequencies)
    kv = head.norm(y @ head.w(a + "wkv.weight").T, head.w(a + "kv_norm.weight"))[:, None]
    kv = _turned(kv, frequencies)
    out = attend(q, kv, kv, width**-0.5, config["sliding_window"], head.w(a + "attn_sink"))
    grouped = split(_turned(split(out, n_head), -frequencies).reshape(len(y), -1), groups)
    first = head.w(a + "wo_a.weight").reshape(groups, config["o_lora_rank"], -1)
    low = np.einsum("ngi,goi->ngo", grouped, first).reshape(len(y), -1)
    return np.asarray(low @ head.w(a + "wo_b.weight").T, np.float32)


def _v4_experts(head: Head, x: Floats) -> Floats:
    """Both factors are cut before the gate is activated; scores are roots of softplus."""
    config, limit = head.config, head.config["swiglu_limit"]

    def expert(name: str, rows: Floats) -> Floats:
        gate, down, up = (head.w(f"ffn.{name}.w{i}.weight") for i in (1, 2, 3))
        g = np.minimum(rows @ gate.T, limit)
        u = np.clip(rows @ up.T, -limit, limit)
        return np.asarray((g * sigmoid(g) * u) @ down.T, np.float32)

    scores = np.sqrt(np.log1p(np.exp(x @ head.w("ffn.gate.weight").T)))
    biased = scores + head.w("ffn.gate.bias")
    out = expert("shared_experts", x)
    for row in range(len(x)):
        chosen = np.argsort(-biased[row])[: config["num_experts_per_tok"]]
        weights = config["routed_scaling_factor"] * scores[row, chosen] / scores[row, chosen].sum()
        for one, weight in zip(chosen, weights, strict=True):
            out[row] += weight * expert(f"experts.{one}", x[row : row + 1])[0]
    return out


def deepseek4_head(tiny: Tiny, tokens: list[int], hidden: Floats) -> tuple[Floats, Floats]:
    """Logits, and its own rows (n, 4 * width). hidden: (n, 4 * width), four streams."""
    head = Head(tiny, "mtp.0")
    e = head.norm(head.all["embed.weight"][tokens], head.w("enorm.weight"))
    h = head.norm(hidden.reshape(len(hidden), 4, -1), head.w("hnorm.weight"))
    x = (e @ head.w("e_proj.weight").T)[:, None] + h @ head.w("h_proj.weight").T
    y, post, comb = _streams(head, x, "attn")
    x = _parted(x, _v4_attention(head, head.norm(y, head.w("attn_norm.weight"))), post, comb)
    y, post, comb = _streams(head, x, "ffn")
    x = _parted(x, _v4_experts(head, head.norm(y, head.w("ffn_norm.weight"))), post, comb)
    mixes = _weighed(head, x, "hc_head") * head.w("hc_head_scale") + head.w("hc_head_base")
    joined_ = np.einsum("ns,nsd->nd", sigmoid(mixes) + head.config["hc_eps"], x)
    logits = head.norm(joined_, head.w("norm.weight")) @ head.all["head.weight"].T
    return np.asarray(logits, np.float32), x.reshape(len(x), -1)
