"""Tiny random checkpoints in the layout that each family publishes: real names, real config keys.

Owns a safetensors writer of its own (numpy only), so that the converter's reader is tested
against something independent. Knows nothing of the converter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

N_VOCAB = 320


def bf16_bits(values: Array) -> npt.NDArray[np.uint16]:
    """float32 cut to BF16 bits (values made here are exact already)."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype("<u2")


def as_bf16(values: Array) -> npt.NDArray[np.float32]:
    """float32 values that BF16 holds exactly."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


@dataclass
class Tiny:
    """A checkpoint in memory: float32 values, and the format each is stored in."""

    config: dict[str, Any]
    seed: int = 1
    byte_fallback: bool = False  # a tokenizer of characters, with bytes as a last resort
    tensors: dict[str, Array] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def matrix(self, name: str, *shape: int, scale: float = 1.0) -> None:
        """Random values whose products keep the size of their input."""
        width = scale / np.sqrt(shape[-1])
        self.put(name, self.random.standard_normal(shape).astype(np.float32) * width)

    def norm(self, name: str, n: int, around: float = 1.0) -> None:
        self.put(name, around + 0.2 * self.random.standard_normal(n).astype(np.float32))

    def vector(self, name: str, n: int, scale: float = 0.2) -> None:
        self.put(name, scale * self.random.standard_normal(n).astype(np.float32))

    def put(self, name: str, values: Array, stored: str = "BF16") -> None:
        self.tensors[name] = as_bf16(values) if stored == "BF16" else values
        self.formats[name] = stored

    def fp8(self, name: str, n_rows: int, n_cols: int, block: int) -> None:
        """Random FP8 codes without NaN, and block scales that give values of a usual size."""
        codes = self.random.integers(0, 127, (n_rows, n_cols), np.uint8)
        codes |= (self.random.integers(0, 2, (n_rows, n_cols), np.uint8) << 7).astype(np.uint8)
        codes[(codes & 0x7F) >= 0x50] &= 0xBF  # nothing beyond 4: as trained weights are
        self.put(name, codes, "F8_E4M3")
        n_scales = (-(-n_rows // block), -(-n_cols // block))
        scales = (0.5 + self.random.random(n_scales)) / np.sqrt(n_cols)
        self.put(name + "_scale_inv", scales.astype(np.float32), "F32")

    def drop(self, start: str) -> None:
        for name in [name for name in self.tensors if name.startswith(start)]:
            del self.tensors[name], self.formats[name]


def raw_bytes(values: Array, stored: str) -> bytes:
    if stored == "BF16":
        return bf16_bits(values).tobytes()
    dtype = {"F32": "<f4", "F16": "<f2", "F8_E4M3": "u1", "F64": "<f8", "I64": "<i8"}[stored]
    return np.ascontiguousarray(values.astype(dtype, copy=False)).tobytes()


def write_shard(file: Path, tensors: Mapping[str, Array], formats: Mapping[str, str]) -> None:
    header, position, parts = {}, 0, []
    for name, values in tensors.items():
        raw = raw_bytes(values, formats[name])
        header[name] = {
            "dtype": formats[name],
            "shape": list(values.shape),
            "data_offsets": [position, position + len(raw)],
        }
        position += len(raw)
        parts.append(raw)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def write_checkpoint(folder: Path, tiny: Tiny, n_shards: int = 2, tokenizer: bool = True) -> Path:
    """The folder as it would be published: config, index, shards, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tiny.config))
    names = list(tiny.tensors)
    weight_map: dict[str, str] = {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        chosen = names[shard::n_shards]  # interleaved: a scale lies in another shard
        write_shard(folder / file, {name: tiny.tensors[name] for name in chosen}, tiny.formats)
        weight_map |= dict.fromkeys(chosen, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if tokenizer:
        write = write_gemma_tokenizer if tiny.byte_fallback else write_tokenizer
        write(folder)
    return folder


QWEN2_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def write_tokenizer(folder: Path, *rules: str) -> None:
    """A byte-level BPE: every byte, three merges, some special tokens and one added word.

    rules: by which it splits text; Qwen2's if none
    """
    alphabet = byte_alphabet()
    merges = [["t", "h"], ["th", "e"], ["i", "n"]]
    vocab = {text: i for i, text in enumerate([*alphabet, *("".join(m) for m in merges)])}
    special = ["<|endoftext|>", "<|im_end|>", "[gMASK]", "<|user|>", "<|observation|>"]
    added = [
        {"id": len(vocab) + i, "content": text, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": text in special}
        for i, text in enumerate([*special, "<think>"])
    ]  # fmt: skip
    splits = [
        {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
        for rule in rules or (QWEN2_RULE,)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": False}  # fmt: skip
    data = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True,
                                            "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(data))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "add_bos_token": False,
        "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_gemma_tokenizer(folder: Path) -> None:
    """Gemma's kind: characters, a mark for spaces, bytes where all else fails."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = [chr(c) for c in range(97, 123)] + ["\u2581", "."]
    others = ["<|channel>", *[f"word{i}" for i in range(N_VOCAB - 5 - 256 - 28 - 2)], "th", "in"]
    texts = [*special, *[f"<0x{byte:02X}>" for byte in range(256)], *letters, *others]
    merges = [["t", "h"], ["i", "n"]]
    added = [
        {"id": texts.index(text), "content": text, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": True}
        for text in [*special, "<|channel>"]
    ]  # fmt: skip
    data = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True,
                  "vocab": {text: i for i, text in enumerate(texts)}, "merges": merges},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(data))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
        "pad_token": "<pad>", "unk_token": "<unk>", "additional_special_tokens": ["<|channel>"],
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


Builder = Callable[[], Tiny]
EMBD, N_HEAD, N_KV, WIDTH, FF, N_LAYER = 64, 4, 2, 16, 96, 3


def base(architecture: str, model_type: str, **more: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture], "model_type": model_type, "hidden_size": EMBD,
        "num_attention_heads": N_HEAD, "num_key_value_heads": N_KV, "num_hidden_layers": N_LAYER,
        "intermediate_size": FF, "vocab_size": N_VOCAB, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "hidden_act": "silu", "torch_dtype": "bfloat16", **more,
    }  # fmt: skip


def target(tiny: Tiny, around: float = 1.0, tied: bool = False, prefix: str = "model.") -> None:
    tiny.matrix(prefix + "embed_tokens.weight", N_VOCAB, EMBD, scale=3.0)
    tiny.norm(prefix + "norm.weight", EMBD, around)
    if not tied:
        tiny.matrix("lm_head.weight", N_VOCAB, EMBD, scale=3.0)
    output = tiny.tensors[prefix + "embed_tokens.weight" if tied else "lm_head.weight"]
    output[259:264] = 0  # the tokens that would end an answer are never the best


def attention(
    tiny: Tiny, layer: str, *, bias: bool = False, qk_norm: float | None = None, gate: int = 1
) -> None:
    a = layer + ".self_attn."
    tiny.matrix(a + "q_proj.weight", N_HEAD * WIDTH * gate, EMBD)
    tiny.matrix(a + "k_proj.weight", N_KV * WIDTH, EMBD)
    tiny.matrix(a + "v_proj.weight", N_KV * WIDTH, EMBD)
    tiny.matrix(a + "o_proj.weight", EMBD, N_HEAD * WIDTH)
    if bias:
        for part, n in (("q", N_HEAD * WIDTH), ("k", N_KV * WIDTH), ("v", N_KV * WIDTH)):
            tiny.vector(f"{a}{part}_proj.bias", n)
    if qk_norm is not None:
        tiny.norm(a + "q_norm.weight", WIDTH, qk_norm)
        tiny.norm(a + "k_norm.weight", WIDTH, qk_norm)


def norms(tiny: Tiny, layer: str, around: float = 1.0) -> None:
    tiny.norm(layer + ".input_layernorm.weight", EMBD, around)
    tiny.norm(layer + ".post_attention_layernorm.weight", EMBD, around)


def mlp(tiny: Tiny, prefix: str, n_ff: int = FF) -> None:
    tiny.matrix(prefix + ".gate_proj.weight", n_ff, EMBD)
    tiny.matrix(prefix + ".up_proj.weight", n_ff, EMBD)
    tiny.matrix(prefix + ".down_proj.weight", EMBD, n_ff)


def llama() -> Tiny:
    tiny = Tiny(base("LlamaForCausalLM", "llama"))
    tiny.config["rope_scaling"] = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }  # fmt: skip
    target(tiny)
    for i in range(N_LAYER):
        norms(tiny, f"model.layers.{i}")
        attention(tiny, f"model.layers.{i}")
        mlp(tiny, f"model.layers.{i}.mlp")
    return tiny


def mistral() -> Tiny:
    tiny = llama()
    del tiny.config["rope_scaling"]
    tiny.config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral",
                    "head_dim": WIDTH, "sliding_window": None}  # fmt: skip
    return tiny


def smollm() -> Tiny:
    tiny = llama()
    del tiny.config["rope_scaling"], tiny.tensors["lm_head.weight"]
    tiny.config["tie_word_embeddings"] = True
    return tiny


def qwen2() -> Tiny:
    tiny = Tiny(base("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True))
    target(tiny, tied=True)
    for i in range(N_LAYER):
        norms(tiny, f"model.layers.{i}")
        attention(tiny, f"model.layers.{i}", bias=True)
        mlp(tiny, f"model.layers.{i}.mlp")
    return tiny


def qwen3() -> Tiny:
    tiny = Tiny(base("Qwen3ForCausalLM", "qwen3", head_dim=WIDTH))
    target(tiny)
    for i in range(N_LAYER):
        norms(tiny, f"model.layers.{i}")
        attention(tiny, f"model.layers.{i}", qk_norm=1.0)
        mlp(tiny, f"model.layers.{i}.mlp")
    return tiny
