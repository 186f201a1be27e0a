"""More plain numpy forwards of heads, as `forward.py` has them: Ling-3.0.

Written after vLLM's model of it. Knows nothing of GGUF or of the converter.
"""

from __future__ import annotations

import numpy as np

from tests.convert.checkpoints import Tiny
from tests.convert.forward import Floats, Head, attend, joined, rope_pairs, sigmoid, split


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
