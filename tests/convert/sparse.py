"""Checkpoints of any size that take no room: shards that are holes. Knows nothing of converting."""

from __future__ import annotations

import json
from pathlib import Path

VOCAB = 32000


def write_sparse_checkpoint(folder: Path, n_layers: int, embd: int, ff: int) -> Path:
    """A Llama in BF16 whose weights are all zero, one shard for each layer."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": embd,
        "num_hidden_layers": n_layers, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": ff, "vocab_size": VOCAB, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    kv = embd // 4
    layer = {
        "input_layernorm": (embd,), "post_attention_layernorm": (embd,),
        "self_attn.q_proj": (embd, embd), "self_attn.k_proj": (kv, embd),
        "self_attn.v_proj": (kv, embd), "self_attn.o_proj": (embd, embd),
        "mlp.gate_proj": (ff, embd), "mlp.up_proj": (ff, embd), "mlp.down_proj": (embd, ff),
    }  # fmt: skip
    shards = [
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
        _write_hole(folder / file, shapes)
        weight_map |= dict.fromkeys(shapes, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _write_hole(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, position = {}, 0
    for name, shape in shapes.items():
        n_bytes = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [position, position + n_bytes],
        }
        position += n_bytes
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + position)
