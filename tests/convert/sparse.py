"""Checkpoints of any size that take no room: shards that are holes. Knows nothing of converting."""

from __future__ import annotations

import json
import math
from pathlib import Path

Shape = tuple[int, ...]

VOCAB = 32000
BLOCK = 128  # rows and columns that share a scale in FP8
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}


def write_sparse_checkpoint(
    folder: Path, n_layers: int, embd: int, ff: int, stored: str = "BF16"
) -> Path:
    """A Llama whose weights are all zero, one shard for each layer.

    stored: the format of its matrices; beside FP8, as published, BF16 for norms, embedding and
            output, and float32 scales for the rest
    """
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": embd,
        "num_hidden_layers": n_layers, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": ff, "vocab_size": VOCAB, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    }  # fmt: skip
    if stored == "F8_E4M3":
        config["quantization_config"] = {"weight_block_size": [BLOCK, BLOCK]}
    (folder / "config.json").write_text(json.dumps(config))
    kv = embd // 4
    layer: dict[str, Shape] = {
        "input_layernorm": (embd,), "post_attention_layernorm": (embd,),
        "self_attn.q_proj": (embd, embd), "self_attn.k_proj": (kv, embd),
        "self_attn.v_proj": (kv, embd), "self_attn.o_proj": (embd, embd),
        "mlp.gate_proj": (ff, embd), "mlp.up_proj": (ff, embd), "mlp.down_proj": (embd, ff),
    }  # fmt: skip
    shards: list[dict[str, Shape]] = [
        {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
        for i in range(n_layers)
    ]
    shards.append({
        "model.embed_tokens.weight": (VOCAB, embd), "model.norm.weight": (embd,),
        "lm_head.weight": (VOCAB, embd),
    })  # fmt: skip
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        entries = _entries(shapes, stored)
        _write_hole(folder / file, entries)
        weight_map |= dict.fromkeys(entries, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _entries(shapes: dict[str, Shape], stored: str) -> dict[str, tuple[str, Shape]]:
    """Format and shape of each tensor, scales among them."""
    found: dict[str, tuple[str, Shape]] = {}
    for name, shape in shapes.items():
        is_fp8 = stored == "F8_E4M3" and ".layers." in name and len(shape) == 2
        found[name] = (stored if is_fp8 or stored != "F8_E4M3" else "BF16", shape)
        if is_fp8:
            found[name + "_scale_inv"] = ("F32", tuple(-(-n // BLOCK) for n in shape))
    return found


def _write_hole(file: Path, entries: dict[str, tuple[str, Shape]]) -> None:
    header, position = {}, 0
    for name, (dtype, shape) in entries.items():
        end = position + ITEM_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + position)
