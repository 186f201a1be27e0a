"""What a converted file must hold, worked out without the converter.

Names come from gguf-py's own table, values from naive whole-array numpy. Slow and simple on
purpose; knows nothing of `convert`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map

from tests.convert.checkpoints import Tiny

Floats = npt.NDArray[np.float32]

_QWEN_HEAD = {
    "mtp.fc": "eh_proj", "mtp.pre_fc_norm_embedding": "enorm", "mtp.pre_fc_norm_hidden": "hnorm",
    "mtp.norm": "shared_head.norm",
}  # fmt: skip


# The released gguf-py lists these for few architectures, and does not know some at all.
_OWN = {
    **{
        f"self_attn.indexer.{old}": f"indexer.{new}"
        for old, new in (
            ("wq_b.weight", "attn_q_b.weight"), ("wk.weight", "attn_k.weight"),
            ("k_norm.weight", "k_norm.weight"), ("k_norm.bias", "k_norm.bias"),
            ("weights_proj.weight", "proj.weight"),
        )
    },
    "eh_proj.weight": "nextn.eh_proj.weight", "enorm.weight": "nextn.enorm.weight",
    "hnorm.weight": "nextn.hnorm.weight", "embed_tokens.weight": "nextn.embed_tokens.weight",
    "shared_head.head.weight": "nextn.shared_head_head.weight",
    "shared_head.norm.weight": "nextn.shared_head_norm.weight",
    "self_attn.qkv_proj.weight": "attn_qkv.weight",
    "mlp.router.gate.weight": "ffn_gate_inp.weight", "mlp.expert_bias": "exp_probs_b",
    "self_attn.g_proj.weight": "attn_gate.weight",
    "mtp_norm.weight": "post_attention_norm.weight",
    "final_layernorm.weight": "layer_output_norm.weight",
    "router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale",
}  # fmt: skip


_ASSISTANT = {
    "pre_projection.weight": "nextn.pre_projection.weight",
    "post_projection.weight": "nextn.post_projection.weight",
}


def e4m3(code: int) -> float:
    """One FP8 value from its bits, by the definition."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = (code >> 3) & 0xF, code & 7
    if exponent == 0:
        return float(sign * mantissa / 8 * 2**-6)
    return float(sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def dequantized(tiny: Tiny) -> dict[str, Floats]:
    """Every weight as float32; FP8 codes times their block's scale."""
    config = tiny.config.get("quantization_config") or {}
    found: dict[str, Floats] = {}
    for name, values in tiny.tensors.items():
        fp8 = (name.removesuffix("_scale_inv"), name.removesuffix("scale") + "weight")
        if any(tiny.formats.get(one) == "F8_E4M3" for one in fp8 if one != name) or re.search(
            r"visual|vision_model|vit_large|embed_(vision|audio)|audio_encoder|speech_", name
        ):
            continue
        if tiny.formats[name] == "F8_E4M3":
            rows, cols = config["weight_block_size"]
            plain = np.vectorize(e4m3, otypes=[np.float32])(values)
            beside = (name + "_scale_inv", name.removesuffix("weight") + "scale")
            scales = next(tiny.tensors[one] for one in beside if one in tiny.tensors)
            if name.endswith("qkv_proj.weight"):
                found[name] = by_rank(plain, scales, text_config(tiny))
                continue
            scale = np.kron(scales, np.ones((rows, cols), np.float32))
            found[name] = plain * scale[: values.shape[0], : values.shape[1]]
        else:
            found[name] = values.astype(np.float32)
    return found


def by_rank(rows: Floats, scales: Floats, config: dict[str, Any]) -> Floats:
    """MiMo-V2.5's q, k and v, a row of scales for each of four ranks: all q, all k, all v."""
    n_ranks, width = len(scales), int(config["head_dim"])
    q = int(config["num_attention_heads"]) * width
    n_kv = (len(rows) - q) // (width + int(config["v_head_dim"]))
    cuts = np.cumsum([q, n_kv * width]) // n_ranks
    shares = [np.split(share * scale, cuts) for share, scale in
              zip(np.split(rows, n_ranks), scales, strict=True)]  # fmt: skip
    return np.concatenate([share[part] for part in range(3) for share in shares])


def text_config(tiny: Tiny) -> dict[str, Any]:
    return {**tiny.config, **tiny.config.get("text_config", {})}


_NEMOTRON_HEAD = {
    "0.norm": "norm", "0.mixer": "mixer", "1.mixer": "mixer", "1.norm": "mtp_norm",
    "1.final_layernorm": "shared_head.norm", "0.eh_proj": "eh_proj", "0.enorm": "enorm",
    "0.hnorm": "hnorm",
}  # fmt: skip


def canonical(name: str, n_layer: int, arch: str) -> str:
    """Heads as layers behind the target's, the way gguf-py's table names them."""
    if arch == "nemotron_h_moe":
        for old, new in _NEMOTRON_HEAD.items():
            own = new in ("norm", "mixer")
            base = "backbone" if own else "model"
            name = name.replace(f"mtp.layers.{old}.", f"{base}.layers.{n_layer}.{new}.")
        return re.sub(r"backbone(\S*)\.mixer\.experts\.", r"model\1.mlp.experts.", name)
    if arch == "bailingmoe3":
        return _ling(name)
    if arch == "deepseek4":
        return name
    if arch == "hy_v3":
        name = name.replace(".final_layernorm.", ".shared_head.norm.")
    name = name.replace("language_model.", "").replace("model.mtp.", "mtp.")
    module, _, kind = name.rpartition(".")
    if module in _QWEN_HEAD:
        return f"model.layers.{n_layer}.{_QWEN_HEAD[module]}.{kind}"
    name = re.sub(r"^mtp\.layers\.(\d+)", lambda m: f"model.layers.{n_layer + int(m[1])}", name)
    name = name.replace(".transformer.shared_head.output.", ".shared_head.head.")
    name = name.replace(".transformer.shared_head.norm.", ".shared_head.norm.")
    return name.replace("pre_mlp_layernorm", "post_attention_layernorm")


def _ling(name: str) -> str:
    """Kimi's names for the delta attention, of layers 0 and 2."""
    name = name.replace("word_embeddings", "embed_tokens").replace(".attention.", ".self_attn.")
    name = name.replace("expert_bias", "e_score_correction_bias")
    name = name.replace("f_proj", "f_a_proj").replace("self_attn.dt_bias", "self_attn.dt_proj.bias")
    return re.sub(r"(layers\.[02]\.self_attn\.g)_proj", r"\1_a_proj", name)


# Whose names an architecture has that the released gguf-py does not know, or not whole.
_ALIKE = {
    "deepseek32": "deepseek2", "gemma4-assistant": "gemma4", "glm-dsa": "deepseek2",
    "hy_v3": "dots1", "bailingmoe3": "kimi-linear", "cohere2moe": "deepseek2",
}  # fmt: skip


_V4 = {
    "embed.weight": "token_embd.weight", "norm.weight": "output_norm.weight",
    "head.weight": "output.weight", "hc_head_fn": "output_hc_fn.weight",
    "hc_head_base": "output_hc_base.weight", "hc_head_scale": "output_hc_scale.weight",
}  # fmt: skip
_V4_LAYER = {
    **{f"hc_{part}_{name}": f"hc_{part}_{name}.weight" for part in ("attn", "ffn")
       for name in ("fn", "base", "scale")},
    "attn_norm.weight": "attn_norm.weight", "ffn_norm.weight": "ffn_norm.weight",
    "attn.attn_sink": "attn_sinks.weight", "attn.wq_a.weight": "attn_q_a.weight",
    "attn.q_norm.weight": "attn_q_a_norm.weight", "attn.wq_b.weight": "attn_q_b.weight",
    "attn.wkv.weight": "attn_kv.weight", "attn.kv_norm.weight": "attn_kv_a_norm.weight",
    "attn.wo_a.weight": "attn_output_a.weight", "attn.wo_b.weight": "attn_output_b.weight",
    **{f"attn.{old}.{part}": f"{new}_{to}.weight"
       for old, new in (("compressor", "attn_compressor"),
                        ("indexer.compressor", "indexer_compressor"))
       for part, to in (("wkv.weight", "kv"), ("wgate.weight", "gate"), ("ape", "ape"),
                        ("norm.weight", "norm"))},
    "attn.indexer.wq_b.weight": "indexer.attn_q_b.weight",
    "attn.indexer.weights_proj.weight": "indexer.proj.weight",
    "ffn.gate.weight": "ffn_gate_inp.weight", "ffn.gate.bias": "exp_probs_b.bias",
    "ffn.gate.tid2eid": "ffn_gate_tid2eid.weight",
    **{f"ffn.{old}.{of}.weight": f"ffn_{to}_{new}.weight"
       for old, new in (("experts", "exps"), ("shared_experts", "shexp"))
       for of, to in (("w1", "gate"), ("w2", "down"), ("w3", "up"))},
}  # fmt: skip


def _v4_name(name: str) -> str:
    """As llama.cpp's converter has them: the released gguf-py knows none."""
    layer = re.match(r"layers\.(\d+)\.(.*)", name)
    return f"blk.{layer[1]}.{_V4_LAYER[layer[2]]}" if layer else _V4[name]


def expected(tiny: Tiny, arch: str) -> dict[str, Floats]:
    """GGUF name -> values in numpy order."""
    if arch == "deepseek4":
        stacked = _stack(dequantized(tiny), arch)
        return {_v4_name(name): values for name, values in stacked.items()}
    config = text_config(tiny)
    n_layer = int(config["num_hidden_layers"])
    known = _ALIKE.get(arch, arch)
    kind = next(key for key, name in MODEL_ARCH_NAMES.items() if name == known)
    table = get_tensor_name_map(MODEL_ARCH(kind), n_layer + 4)
    plain = {canonical(name, n_layer, arch): values for name, values in dequantized(tiny).items()}
    found: dict[str, Floats] = {}
    for name, values in _split(_stack(plain, arch), config, arch).items():
        values = _changed(name, values, config, arch)
        found[gguf_name(name, table)] = values
    return found


def gguf_name(name: str, table: TensorNameMap) -> str:
    if name in _ASSISTANT:
        return _ASSISTANT[name]
    layer = re.match(r"model\.layers\.(\d+)\.(.*)", name)
    if layer and layer[2] in _OWN:
        return f"blk.{layer[1]}.{_OWN[layer[2]]}"
    for old, new in (
        ("mixer.dt_bias", "mixer.dt_proj.bias"),
        ("linear_attn.dt_bias", "linear_attn.dt_proj.bias"),
        ("attention_sink_bias", "attention_sink_bias.weight"),
        ("e_score_correction_bias", "e_score_correction.bias"),
        ("moe.router_bias", "moe.router_bias.bias"),
        ("layer_scalar", "layer_scalar.weight"),
    ):
        name = name.replace(old, new)
    mapped: str | None = table.get_name(name, try_suffixes=(".weight", ".bias"))
    assert mapped, f"gguf-py does not know {name}"
    return mapped


def _stack(plain: dict[str, Floats], arch: str) -> dict[str, Floats]:
    """Experts one by one -> stacked; experts fused -> gate and up, but for Gemma."""
    found: dict[str, Floats] = {}
    groups: dict[str, dict[int, Floats]] = defaultdict(dict)
    for name, values in plain.items():
        match = re.search(r"\.experts\.(\d+)\.", name)
        if match:
            groups[name.replace(match[0], ".experts.")][int(match[1])] = values
        elif name.endswith("experts.gate_up_proj") and arch == "gemma4":
            found[name + ".weight"] = values
        elif name.endswith("experts.gate_up_proj"):
            half = values.shape[1] // 2
            base = name.removesuffix("gate_up_proj")
            found[base + "gate_proj.weight"] = values[:, :half]
            found[base + "up_proj.weight"] = values[:, half:]
        elif name.endswith("experts.down_proj"):
            found[name + ".weight"] = values
        else:
            found[name] = values
    for name, experts in groups.items():
        found[name] = np.stack([experts[e] for e in range(len(experts))])
    return found


def _split(plain: dict[str, Floats], config: dict[str, Any], arch: str) -> dict[str, Floats]:
    """Tensors that become two, or several that become one."""
    found = dict(plain)
    for name, values in plain.items():
        if name.endswith("kv_b_proj.weight"):
            nope, v_dim = int(config["qk_nope_head_dim"]), int(config["v_head_dim"])
            heads = values.reshape(-1, nope + v_dim, values.shape[-1])
            del found[name]
            found[name.replace("kv_b", "k_b")] = np.swapaxes(heads[:, :nope], 1, 2)
            found[name.replace("kv_b", "v_b")] = heads[:, nope:]
        if name.endswith("in_proj_qkvz.weight"):
            del found[name]
            groups = values.reshape(2, 32 + 32 + 64 + 64, -1)
            q, k, v, z = (groups[:, a:b] for a, b in ((0, 32), (32, 64), (64, 128), (128, 192)))
            parts = [part.reshape(-1, values.shape[-1]) for part in (q, k, v)]
            found[name.replace("qkvz", "qkv")] = np.concatenate(parts)
            found[name.replace("qkvz", "z")] = z.reshape(-1, values.shape[-1])
        is_head = re.match(r"model\.layers\.([3-9])\.", name)
        if arch == "mimo2" and is_head and name.endswith("q_proj.weight"):
            trio = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
            found[name.replace("q_proj", "qkv_proj")] = np.concatenate([plain[n] for n in trio])
            for one in trio:
                del found[one]
    return found


def _changed(name: str, values: Floats, config: dict[str, Any], arch: str) -> Floats:
    """The arithmetic and the re-orderings, one rule each."""
    if arch in ("llama", "nemotron_h_moe") and re.search(r"\.(q|k)_proj\.weight$", name):
        key = "num_attention_heads" if ".q_proj" in name else "num_key_value_heads"
        n_head = int(config[key])
        pairs = values.reshape(n_head, 2, values.shape[0] // n_head // 2, values.shape[1])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    if arch == "bailingmoe3" and name.endswith("A_log"):
        return np.exp(values)[:, None]
    if arch == "bailingmoe3" and name.endswith("_conv1d.weight"):
        return values[None]
    if name.endswith("A_log"):
        values = -np.exp(values)
    if name.endswith("conv1d.weight"):
        values = values[:, 0]
    if arch == "nemotron_h_moe":
        if name.endswith((".A_log", ".D")):
            values = values[:, None]
        if name.endswith("mixer.norm.weight"):
            values = values.reshape(int(config["n_groups"]), -1)
    if arch in ("qwen35", "qwen35moe") and ".linear_attn." in name:
        values = _tiled(name.rpartition("linear_attn.")[2], values, config)
    centred = arch in ("qwen35", "qwen35moe", "qwen3next", "step35")
    if centred and name.endswith("norm.weight") and "linear_attn" not in name:
        values = values + 1
    return values


def _tiled(part: str, values: Floats, config: dict[str, Any]) -> Floats:
    """Two key heads with value heads each: of four, 0 1 2 3 come to lie as 0 2 1 3."""
    n = int(config["linear_num_value_heads"])
    order = [group * (n // 2) + i for i in range(n // 2) for group in range(2)]
    if part in ("A_log", "dt_bias", "in_proj_a.weight", "in_proj_b.weight"):
        return values[order]
    if part == "in_proj_z.weight":
        return values.reshape(n, 32, -1)[order].reshape(values.shape)
    if part in ("in_proj_qkv.weight", "conv1d.weight"):
        heads = values[128:].reshape(n, 32, -1)[order].reshape(n * 32, -1)
        return np.concatenate([values[:128], heads])
    if part == "out_proj.weight":
        return values.reshape(-1, n, 32)[:, order].reshape(values.shape)
    return values
