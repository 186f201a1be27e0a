"""Tiny random models, written with the `gguf` package: one for each kind of memory and of head.

Owns what each architecture of llama.cpp needs to load, at widths at which it decodes in
microseconds. Knows nothing of the engine under test. A `Spec` is plain data, so that a test can
break one key or tensor of it before it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from mtp_cli import head_file

Floats = npt.NDArray[np.float32]

N_EMBD, N_FF, N_HEAD, D_HEAD = 64, 96, 4, 16
WINDOW = 8
_SIGMOID = 2  # LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID
EPS = "attention.layer_norm_rms_epsilon"

TOKENS = [*map(chr, range(0x21, 0x7F)), *map(chr, range(0xA1, 0xAD)), *map(chr, range(0xAE, 0x100))]
TOKENS += [chr(0x100 + n) for n in range(256 - len(TOKENS))]  # GPT-2's letters for the 256 bytes
TOKENS += ["th", "<|end|>"]
N_VOCAB = len(TOKENS)
EOS = N_VOCAB - 1
VOCABULARY: dict[str, Any] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [1] * EOS + [3],
    "tokenizer.ggml.merges": ["t h"],
    "tokenizer.ggml.eos_token_id": EOS,
}


@dataclass
class Spec:
    """A GGUF to be written.

    keys:    ints are written as uint32, floats as float32, lists as arrays of int32 or strings
    tensors: float32 arrays, (n_out, n_in); of more than one dimension they get `ggml_type`
    integers: tensors that are written as they are
    """

    architecture: str
    keys: dict[str, Any]
    tensors: dict[str, Floats]
    ggml_type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32
    unquantized: tuple[str, ...] = field(default=("conv", "ssm_a", "ssm_x", "ssm_dt", "gate_inp"))
    integers: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.keys.items():
            _add(writer, key, value)
        for name, values in self.tensors.items():
            kind = gguf.GGMLQuantizationType.F32
            if values.ndim > 1 and not any(part in name for part in self.unquantized):
                kind = self.ggml_type
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        for name, ids in self.integers.items():
            writer.add_tensor(name, ids)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def quantized(self, kind: gguf.GGMLQuantizationType) -> Spec:
        return replace(self, keys=dict(self.keys), tensors=dict(self.tensors), ggml_type=kind)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, np.ndarray):
        writer.add_array(key, value.tolist())
    else:
        writer.add_array(key, value)


class Weights:
    """Seeded random tensors, of a size at which a random model's greedy text wanders."""

    def __init__(self, seed: int, n_embd: int = N_EMBD, n_ff: int = N_FF) -> None:
        self._rng = np.random.default_rng(seed)
        self._n_embd, self._n_ff = n_embd, n_ff
        self.tensors: dict[str, Floats] = {}

    def matrix(self, name: str, n_out: int, n_in: int, gain: float = 1.0) -> None:
        values = self._rng.standard_normal((n_out, n_in)) * (gain / np.sqrt(n_in))
        self.tensors[f"{name}.weight"] = values.astype(np.float32)

    def experts(self, name: str, n_expert: int, n_out: int, n_in: int) -> None:
        values = self._rng.standard_normal((n_expert, n_out, n_in)) / np.sqrt(n_in)
        self.tensors[f"{name}.weight"] = values.astype(np.float32)

    def drawn(self, shape: tuple[int, ...]) -> Floats:
        return (self._rng.standard_normal(shape) * 0.5).astype(np.float32)

    def norm(self, name: str, n: int | None = None) -> None:
        self.vector(f"{name}.weight", n or self._n_embd, 0.7, 1.3)

    def vector(self, name: str, n: int, low: float, high: float) -> None:
        self.tensors[name] = self._rng.uniform(low, high, n).astype(np.float32)

    def vocabulary(self, n_vocab: int = N_VOCAB, *, norm: str = "output_norm") -> None:
        """Embedding, final norm and output; the last id's logit is 0, so greedy text goes on."""
        self.matrix("token_embd", n_vocab, self._n_embd, gain=float(np.sqrt(self._n_embd)))
        self.matrix("output", n_vocab, self._n_embd, gain=3.0)
        self.tensors["output.weight"][-1] = 0
        self.norm(norm)

    def attention(self, block: str, n_head_kv: int = 2, *, q_gate: int = 1) -> None:
        self.norm(f"{block}.attn_norm")
        self.matrix(f"{block}.attn_q", N_HEAD * D_HEAD * q_gate, self._n_embd, gain=2.0)
        self.matrix(f"{block}.attn_k", n_head_kv * D_HEAD, self._n_embd, gain=2.0)
        self.matrix(f"{block}.attn_v", n_head_kv * D_HEAD, self._n_embd, gain=2.0)
        self.matrix(f"{block}.attn_output", self._n_embd, N_HEAD * D_HEAD, gain=2.0)

    def fused_attention(self, block: str, n_head_kv: int = 2) -> None:
        self.norm(f"{block}.attn_norm")
        self.matrix(f"{block}.attn_qkv", (N_HEAD + 2 * n_head_kv) * D_HEAD, self._n_embd, gain=2.0)
        self.matrix(f"{block}.attn_output", self._n_embd, N_HEAD * D_HEAD, gain=2.0)

    def ffn(self, block: str, norm: str = "ffn_norm") -> None:
        self.norm(f"{block}.{norm}")
        self.matrix(f"{block}.ffn_gate", self._n_ff, self._n_embd)
        self.matrix(f"{block}.ffn_up", self._n_ff, self._n_embd)
        self.matrix(f"{block}.ffn_down", self._n_embd, self._n_ff, gain=2.0)

    def moe(self, block: str, n_expert: int) -> None:
        self.routed(block, n_expert)
        self.vector(f"{block}.ffn_gate_inp_shexp.weight", self._n_embd, -0.3, 0.3)
        self.shared_expert(block)

    def routed(self, block: str, n_expert: int) -> None:
        """Experts without a shared one."""
        self.matrix(f"{block}.ffn_gate_inp", n_expert, self._n_embd)
        self.experts(f"{block}.ffn_gate_exps", n_expert, self._n_ff, self._n_embd)
        self.experts(f"{block}.ffn_up_exps", n_expert, self._n_ff, self._n_embd)
        self.experts(f"{block}.ffn_down_exps", n_expert, self._n_embd, self._n_ff)

    def shared_expert(self, block: str) -> None:
        self.matrix(f"{block}.ffn_gate_shexp", self._n_ff, self._n_embd)
        self.matrix(f"{block}.ffn_up_shexp", self._n_ff, self._n_embd)
        self.matrix(f"{block}.ffn_down_shexp", self._n_embd, self._n_ff)

    def mamba(self, block: str) -> None:
        inner, state, rank = 2 * self._n_embd, 8, 4
        self.norm(f"{block}.attn_norm")
        self.matrix(f"{block}.ssm_in", 2 * inner, self._n_embd, gain=2.0)
        self.matrix(f"{block}.ssm_conv1d", inner, 4, gain=2.0)
        self.vector(f"{block}.ssm_conv1d.bias", inner, -0.1, 0.1)
        self.matrix(f"{block}.ssm_x", rank + 2 * state, inner)
        self.matrix(f"{block}.ssm_dt", inner, rank)
        self.vector(f"{block}.ssm_dt.bias", inner, -2.0, 0.0)
        decay = -np.tile(np.arange(1, state + 1, dtype=np.float32) / 4, (inner, 1))
        self.tensors[f"{block}.ssm_a"] = decay.astype(np.float32)
        self.vector(f"{block}.ssm_d", inner, 0.5, 1.0)
        self.matrix(f"{block}.ssm_out", self._n_embd, inner, gain=2.0)

    def delta_net(self, block: str, *, is_qwen3next: bool = False) -> None:
        state, n_heads = D_HEAD, N_HEAD
        width = state * n_heads
        self.norm(f"{block}.attn_norm")
        self.matrix(f"{block}.attn_qkv", 3 * width, self._n_embd, gain=2.0)
        self.matrix(f"{block}.attn_gate", width, self._n_embd)
        self.matrix(f"{block}.ssm_conv1d", 3 * width, 4, gain=2.0)
        self.vector(f"{block}.ssm_dt.bias", n_heads, -1.0, 0.0)
        self.vector(f"{block}.ssm_a", n_heads, -0.5, -0.1)
        if is_qwen3next:
            self.matrix(f"{block}.ssm_ba", 2 * n_heads, self._n_embd)
        else:
            self.matrix(f"{block}.ssm_beta", n_heads, self._n_embd)
            self.matrix(f"{block}.ssm_alpha", n_heads, self._n_embd)
        self.norm(f"{block}.ssm_norm", state)
        self.matrix(f"{block}.ssm_out", self._n_embd, width, gain=2.0)

    def qk_norms(self, block: str) -> None:
        self.norm(f"{block}.attn_q_norm", D_HEAD)
        self.norm(f"{block}.attn_k_norm", D_HEAD)

    def nextn(self, block: str) -> None:
        self.matrix(f"{block}.nextn.eh_proj", self._n_embd, 2 * self._n_embd, gain=2.0)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            self.norm(f"{block}.nextn.{name}")


def keys_of(architecture: str, n_blocks: int, **own: Any) -> dict[str, Any]:
    """What every architecture wants; `own` keys, with __ for a dot, replace or extend it."""
    keys: dict[str, Any] = {
        "context_length": 4096, "block_count": n_blocks, "embedding_length": N_EMBD,
        "feed_forward_length": N_FF, "attention.head_count": N_HEAD,
        "attention.head_count_kv": 2, EPS: 1e-5, "rope.dimension_count": D_HEAD,
        "attention.key_length": D_HEAD, "attention.value_length": D_HEAD,
    }  # fmt: skip
    keys.update({name.replace("__", "."): value for name, value in own.items()})
    return {f"{architecture}.{name}": value for name, value in keys.items()}


def llama(seed: int = 1, n_blocks: int = 2) -> Spec:
    """Plain KV."""
    weights = Weights(seed)
    weights.vocabulary()
    for index in range(n_blocks):
        weights.attention(f"blk.{index}")
        weights.ffn(f"blk.{index}")
    return Spec("llama", {**keys_of("llama", n_blocks), **VOCABULARY}, weights.tensors)


def qwen2(seed: int = 12, n_blocks: int = 3) -> Spec:
    """Plain KV, with biases; a graph that hands out no rows of its layers."""
    weights = Weights(seed)
    weights.vocabulary()
    for index in range(n_blocks):
        weights.attention(f"blk.{index}")
        for name, n_heads in (("q", N_HEAD), ("k", 2), ("v", 2)):
            weights.vector(f"blk.{index}.attn_{name}.bias", n_heads * D_HEAD, -0.3, 0.3)
        weights.ffn(f"blk.{index}")
    return Spec("qwen2", {**keys_of("qwen2", n_blocks), **VOCABULARY}, weights.tensors)


def gemma2(seed: int = 2) -> Spec:
    """A sliding window in one of its two layers."""
    weights = Weights(seed)
    weights.vocabulary()
    del weights.tensors["output.weight"]
    weights.tensors["token_embd.weight"] /= np.sqrt(N_EMBD)
    weights.tensors["token_embd.weight"][-1] = 0
    # A tied output would make every token's best successor itself, but for the norm's signs.
    weights.tensors["output_norm.weight"][::2] *= -1
    for index in range(2):
        weights.attention(f"blk.{index}")
        weights.norm(f"blk.{index}.post_attention_norm")
        weights.ffn(f"blk.{index}")
        weights.norm(f"blk.{index}.post_ffw_norm")
    caps = {"gemma2.attn_logit_softcapping": 50.0, "gemma2.final_logit_softcapping": 30.0}
    keys = keys_of("gemma2", 2, attention__sliding_window=WINDOW)
    return Spec("gemma2", {**keys, **caps, **VOCABULARY}, weights.tensors)


def mimo2(seed: int = 3, n_heads: int = 3) -> Spec:
    """A sliding window in its second layer, and chained heads with full attention."""
    weights = Weights(seed)
    weights.vocabulary()
    for index in range(2 + n_heads):
        weights.fused_attention(f"blk.{index}")
        weights.ffn(f"blk.{index}")
        if index >= 2:
            weights.nextn(f"blk.{index}")
    return Spec("mimo2", {**_mimo2_keys(2, n_heads, WINDOW), **VOCABULARY}, weights.tensors)


def _mimo2_keys(n_target: int, n_heads: int, window: int) -> dict[str, Any]:
    n_blocks = n_target + n_heads
    keys = keys_of("mimo2", n_blocks, nextn_predict_layers=n_heads, expert_feed_forward_length=N_FF)
    pattern = (
        [index == n_target - 1 for index in range(n_blocks)] if n_target else [True] * n_blocks
    )
    keys["mimo2.attention.sliding_window"] = window
    keys["mimo2.attention.sliding_window_pattern"] = pattern
    return keys


def mamba(seed: int = 4) -> Spec:
    """Recurrent, without snapshots."""
    weights = Weights(seed)
    weights.vocabulary()
    for index in range(2):
        weights.mamba(f"blk.{index}")
    keys = keys_of("mamba", 2, attention__head_count=0, **_MAMBA)
    return Spec("mamba", {**keys, **VOCABULARY}, weights.tensors)


_MAMBA = {
    "ssm__conv_kernel": 4, "ssm__inner_size": 2 * N_EMBD,
    "ssm__state_size": 8, "ssm__time_step_rank": 4,
}  # fmt: skip


def jamba(seed: int = 5) -> Spec:
    """Hybrid, without snapshots."""
    weights = Weights(seed)
    weights.vocabulary()
    weights.mamba("blk.0")
    weights.norm("blk.0.ssm_dt_norm", 4)
    weights.norm("blk.0.ssm_b_norm", 8)
    weights.norm("blk.0.ssm_c_norm", 8)
    weights.attention("blk.1")
    for index in range(2):
        weights.ffn(f"blk.{index}")
    keys = keys_of("jamba", 2, attention__head_count_kv=[0, 2], **_MAMBA)
    return Spec("jamba", {**keys, **VOCABULARY}, weights.tensors)


def lfm2(seed: int = 6, window: int = 0) -> Spec:
    """Hybrid with snapshots; with a window, a hybrid of recurrence and sliding attention."""
    weights = Weights(seed)
    weights.vocabulary(norm="token_embd_norm")
    weights.norm("blk.0.attn_norm")
    weights.matrix("blk.0.shortconv.conv", N_EMBD, 4, gain=2.0)
    weights.matrix("blk.0.shortconv.in_proj", 3 * N_EMBD, N_EMBD)
    weights.matrix("blk.0.shortconv.out_proj", N_EMBD, N_EMBD, gain=2.0)
    weights.attention("blk.1")
    weights.qk_norms("blk.1")
    for index in range(2):
        weights.ffn(f"blk.{index}")
    own = {"attention__sliding_window": window} if window else {}
    keys = keys_of("lfm2", 2, shortconv__l_cache=4, attention__head_count_kv=[0, 2], **own)
    return Spec("lfm2", {**keys, **VOCABULARY}, weights.tensors)


def _delta_net_keys(architecture: str, n_heads: int, **own: Any) -> dict[str, Any]:
    return keys_of(
        architecture, 2 + n_heads, full_attention_interval=2, nextn_predict_layers=n_heads,
        ssm__conv_kernel=4, ssm__inner_size=N_HEAD * D_HEAD, ssm__state_size=D_HEAD,
        ssm__time_step_rank=N_HEAD, ssm__group_count=N_HEAD, **own,
    )  # fmt: skip


def qwen35(seed: int = 7) -> Spec:
    """Hybrid with snapshots, and one head that is reused for every step."""
    weights = Weights(seed)
    weights.vocabulary()
    weights.delta_net("blk.0")
    for index in (1, 2):
        weights.attention(f"blk.{index}", q_gate=2)
        weights.qk_norms(f"blk.{index}")
    for index in range(3):
        weights.ffn(f"blk.{index}", norm="post_attention_norm")
    weights.nextn("blk.2")
    keys = _delta_net_keys("qwen35", 1, rope__dimension_sections=[4, 2, 2, 0])
    return Spec("qwen35", {**keys, **VOCABULARY}, weights.tensors)


def qwen3next(seed: int = 8) -> Spec:
    """Hybrid without snapshots, mixture of experts, and one reused head."""
    weights = Weights(seed)
    weights.vocabulary()
    weights.delta_net("blk.0", is_qwen3next=True)
    for index in (1, 2):
        weights.attention(f"blk.{index}", q_gate=2)
        weights.qk_norms(f"blk.{index}")
    for index in range(3):
        weights.norm(f"blk.{index}.post_attention_norm")
        weights.moe(f"blk.{index}", 4)
    weights.nextn("blk.2")
    keys = _delta_net_keys(
        "qwen3next", 1, expert_count=4, expert_used_count=2,
        expert_feed_forward_length=N_FF, expert_shared_feed_forward_length=N_FF,
    )  # fmt: skip
    return Spec("qwen3next", {**keys, **VOCABULARY}, weights.tensors)


def qwen3moe(seed: int = 10, n_blocks: int = 3, n_embd: int = N_EMBD, n_ff: int = N_FF) -> Spec:
    """Mixture of experts over plain KV: of eight, three are chosen. n_ff: of each."""
    weights = Weights(seed, n_embd, n_ff)
    weights.vocabulary()
    for index in range(n_blocks):
        weights.attention(f"blk.{index}")
        weights.qk_norms(f"blk.{index}")
        weights.norm(f"blk.{index}.ffn_norm")
        weights.routed(f"blk.{index}", 8)
    keys = keys_of(
        "qwen3moe", n_blocks, embedding_length=n_embd, feed_forward_length=n_ff,
        expert_count=8, expert_used_count=3, expert_feed_forward_length=n_ff,
    )  # fmt: skip
    return Spec("qwen3moe", {**keys, **VOCABULARY}, weights.tensors)


def glm4moe(seed: int = 11, n_embd: int = N_EMBD, n_ff: int = N_FF) -> Spec:
    """A dense layer, then mixtures with a shared expert, chosen by sigmoids and a bias."""
    weights = Weights(seed, n_embd, n_ff)
    weights.vocabulary()
    for index in range(3):
        weights.attention(f"blk.{index}")
        weights.norm(f"blk.{index}.post_attention_norm")
    weights.ffn("blk.0", norm="post_attention_norm")
    for index in (1, 2):
        weights.routed(f"blk.{index}", 8)
        weights.shared_expert(f"blk.{index}")
        weights.vector(f"blk.{index}.exp_probs_b.bias", 8, -0.1, 0.1)
    keys = keys_of(
        "glm4moe", 3, embedding_length=n_embd, feed_forward_length=n_ff,
        expert_count=8, expert_used_count=3, expert_feed_forward_length=n_ff,
        expert_shared_count=1, leading_dense_block_count=1, expert_gating_func=_SIGMOID,
        expert_weights_norm=True, expert_weights_scale=1.5,
    )  # fmt: skip
    return Spec("glm4moe", {**keys, **VOCABULARY}, weights.tensors)


def heads_for(
    target: Spec, *, hidden: head_file.HiddenRow, n_draft: int | None = None, seed: int = 9
) -> Spec:
    """A head-only file for `target`, drafting in all of its vocabulary or `n_draft` ids of it."""
    weights = Weights(seed)
    weights.vocabulary(n_draft or N_VOCAB)
    weights.fused_attention("blk.0")
    weights.ffn("blk.0")
    weights.nextn("blk.0")
    info = head_file.HeadInfo(
        target_name="tiny",
        fingerprint=fingerprint(target),
        n_embd=N_EMBD,
        n_vocab=N_VOCAB,
        hidden=hidden,
        vocabulary=None if n_draft is None else trimmed(n_draft),
    )
    keys = {
        head_file.KEY_TYPE: head_file.TYPE,
        **_mimo2_keys(0, 1, 4096),
        "mimo2.vocab_size": n_draft or N_VOCAB,
        "tokenizer.ggml.model": "no_vocab",
        **info.metadata(),
    }
    return Spec("mimo2", keys, weights.tensors)


def fused_heads_for(
    target: Spec,
    layers: Sequence[int],
    *,
    prompt_rows: int = 0,
    n_draft: int | None = None,
    with_final: bool = False,
) -> Spec:
    """A head-only file whose head fuses the rows that these layers read."""
    spec = heads_for(target, hidden="layers", n_draft=n_draft)
    weights, width = Weights(13), len(layers) * N_EMBD
    weights.matrix("mtp.fuse", N_EMBD, width, gain=2.0)
    weights.norm("mtp.fuse_norm", width)
    if with_final:
        weights.norm("mtp.final_norm", N_EMBD)
    keys = head_file.Fused(tuple(layers), prompt_rows, with_final).metadata()
    return Spec("mimo2", {**spec.keys, **keys}, {**spec.tensors, **weights.tensors})


def trimmed(n_draft: int) -> head_file.DraftVocabulary:
    rng = np.random.default_rng(n_draft)
    draft_ids = np.sort(rng.choice(N_VOCAB, n_draft, replace=False)).astype(np.int32)
    surrogates = rng.integers(0, n_draft, N_VOCAB).astype(np.int32)
    surrogates[draft_ids] = np.arange(n_draft)
    return head_file.DraftVocabulary(draft_ids, surrogates)


def fingerprint(target: Spec) -> str:
    n_blocks = target.keys[f"{target.architecture}.block_count"]
    n_nextn = target.keys.get(f"{target.architecture}.nextn_predict_layers", 0)
    names = [n for n in target.tensors if head_file.is_fingerprinted(n, n_blocks - n_nextn)]
    return head_file.fingerprint((name, target.tensors[name]) for name in names)


def random_ids(n: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, EOS, n)]


def is_varied(ids: Sequence[int]) -> bool:
    """Whether a text could show a wrong row: it is not one token over and over."""
    return len(set(ids)) > min(8, len(ids) // 3)
