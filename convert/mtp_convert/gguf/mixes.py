"""Which tensor gets which format: what `--outtype` means for each.

Owns the choice. f32, f16, bf16 and q8_0 follow llama.cpp's converter; q4_0 and the k-quants follow
its quantizer (`llama_model_quantize` without an importance matrix), which gives the more sensitive
tensors of a mix such as q4_k_m more bits. Knows nothing of files, and nothing of encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtp_convert.gguf.header import Pair
from mtp_convert.tensors import formats
from mtp_convert.tensors.kinds import Kind
from mtp_convert.tensors.outtypes import canonical

Shape = tuple[int, ...]
Choice = Callable[[int, int, "Traits"], Kind | None]

# Small or sensitive tensors that llama.cpp's converter keeps in float32.
_KEEP_F32 = re.compile(
    r"(_norm|ffn_gate_inp|ffn_gate_inp_shexp|ssm_conv1d(_[qkv])?|indexer\.proj|_ape"
    r"|hc_(attn_|ffn_)?(fn|base|scale))\.weight$"
)
# Matrices that its quantizer leaves as the converter wrote them.
_LEFT_ALONE = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj|ssm_conv1d"
    r"|indexer\.[kq]_proj\.weight|ffn_gate_tid2eid\.weight"
)
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
_ATTN_V = ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")
_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.")


def default_head_type(outtype: str) -> str:
    """Heads of a model below eight bits stay at eight: they are small and decide the gain."""
    kind = formats.outtype(outtype)
    return "q8_0" if formats.is_quantized(kind) else outtype


@dataclass(frozen=True)
class Traits:
    """What the mixes ask of a model: blocks with heads' counted, experts, queries for each key."""

    n_blocks: int
    n_experts: int = 0
    n_gqa: int = 1
    is_70b: bool = False

    @classmethod
    def of(cls, arch: str, metadata: Mapping[str, Pair]) -> Traits:
        """From the metadata of the file to be written."""

        def count(key: str, default: int) -> int:
            pair = metadata.get(f"{arch}.{key}")
            return default if pair is None else _first(pair.value)

        n_head = count("attention.head_count", 1)
        n_kv = count("attention.head_count_kv", n_head)
        n_blocks = count("block_count", 0)
        sizes = {"llama": n_head != n_kv, "qwen2": True}  # where 80 layers are called 70B
        return cls(
            n_blocks,
            count("expert_count", 0),
            n_head // n_kv if n_kv else 0,
            n_blocks == 80 and sizes.get(arch, False),
        )


def _first(value: Any) -> int:
    """A count, or the first layer's where there is one for each; 0 where it is none at all."""
    if isinstance(value, np.ndarray) and len(value):
        value = value[0]
    return int(value) if isinstance(value, int | np.integer) else 0


def _always(kind: Kind) -> Choice:
    return lambda i, n, traits: kind


def _more_bits(kind: Kind) -> Choice:
    """For the first and the last eighth of the layers, and every third between them."""

    def choose(i: int, n: int, traits: Traits) -> Kind | None:
        eighth = n // 8
        return kind if i < eighth or i >= 7 * n // 8 or (i - eighth) % 3 == 2 else None

    return choose


@dataclass(frozen=True)
class Mix:
    """One quantized outtype: the format of most matrices, and who gets another.

    attn_v, ffn_down: from (which one of its kind, how many there are, traits)
    attn_output:      of models that do not have 8 experts; None: as the most
    eight_output:     of those that do
    """

    attn_v: Choice = lambda i, n, traits: None
    ffn_down: Choice = lambda i, n, traits: None
    attn_output: Kind | None = None
    eight_output: Kind | None = None


MIXES = {
    "q4_0": Mix(),
    "q2_k": Mix(
        attn_v=lambda i, n, traits: Kind.Q4_K if traits.n_gqa >= 4 else Kind.Q3_K,
        ffn_down=_always(Kind.Q3_K),
        attn_output=Kind.Q3_K,
        eight_output=Kind.Q5_K,
    ),
    "q3_k_s": Mix(eight_output=Kind.Q5_K),
    "q3_k_m": Mix(
        attn_v=lambda i, n, traits: Kind.Q5_K if i < 2 else Kind.Q4_K,
        ffn_down=lambda i, n, traits: Kind.Q5_K if i < n // 16 else Kind.Q4_K,
        attn_output=Kind.Q4_K,
        eight_output=Kind.Q5_K,
    ),
    "q3_k_l": Mix(
        attn_v=_always(Kind.Q5_K), ffn_down=_always(Kind.Q5_K), attn_output=Kind.Q5_K
    ),
    "q4_k_s": Mix(
        attn_v=lambda i, n, traits: Kind.Q5_K if i < 4 else None,
        ffn_down=lambda i, n, traits: Kind.Q5_K if i < n // 8 else None,
        eight_output=Kind.Q5_K,
    ),
    "q4_k_m": Mix(
        attn_v=_more_bits(Kind.Q6_K), ffn_down=_more_bits(Kind.Q6_K), eight_output=Kind.Q5_K
    ),
    "q5_k_s": Mix(),
    "q5_k_m": Mix(attn_v=_more_bits(Kind.Q6_K), ffn_down=_more_bits(Kind.Q6_K)),
    "q6_k": Mix(),
}  # fmt: skip


def choose(outtype: str, shapes: Iterable[tuple[str, Shape]], traits: Traits) -> dict[str, Kind]:
    """The format of every tensor of a file, by name; shapes in numpy order.

    The whole file is asked at once: some formats depend on a tensor's place among its kind.
    """
    name = canonical(outtype)
    wanted = formats.outtype(name)
    listed = dict(shapes)
    if name not in MIXES:
        return {tensor: _as_converter(tensor, shape, wanted) for tensor, shape in listed.items()}
    found = {tensor: _as_converter(tensor, shape, Kind.BF16) for tensor, shape in listed.items()}
    chooser = _Chooser(MIXES[name], wanted, traits, list(listed))
    for tensor in sorted(listed, key=_order):
        if _is_quantized(tensor, listed[tensor]):
            found[tensor] = formats.fitting(chooser.kind(tensor), listed[tensor][-1])
    return found


def _as_converter(name: str, shape: Shape, wanted: Kind) -> Kind:
    """What llama.cpp's converter writes."""
    if name.endswith("ffn_gate_tid2eid.weight"):
        return Kind.I32
    if len(shape) == 1 or _KEEP_F32.search(name) or not name.endswith(".weight"):
        return Kind.F32
    return formats.fitting(wanted, shape[-1])


def _is_quantized(name: str, shape: Shape) -> bool:
    """Whether llama.cpp's quantizer would touch it. To ggml a matrix of one row is a vector."""
    is_matrix = any(n > 1 for n in shape[:-1])
    return is_matrix and name.endswith("weight") and not _LEFT_ALONE.search(name)


def _order(name: str) -> tuple[int, str]:
    """llama.cpp's own: by block, then by name."""
    match = _BLOCK.match(name)
    return int(match[1]) if match else -1, name


class _Chooser:
    """Counts the tensors of each kind as it goes, in llama.cpp's order."""

    def __init__(self, mix: Mix, base: Kind, traits: Traits, names: list[str]) -> None:
        self.mix, self.base, self.traits = mix, base, traits
        self.is_tied = "output.weight" not in names
        self.n_attn_v = sum(any(part in name for part in _ATTN_V) for name in names)
        self.i_attn_v = self.i_ffn_down = 0

    def kind(self, name: str) -> Kind:
        if name == "output.weight" or (self.is_tied and name in _EMBEDDINGS):
            return Kind.Q6_K
        if name in _EMBEDDINGS:
            return self.base
        if any(part in name for part in _ATTN_V):
            return self.attn_v()
        if "attn_k.weight" in name:
            return Kind.Q8_0 if self.traits.n_experts == 8 else self.base
        if "attn_output.weight" in name:
            eight = self.traits.n_experts == 8
            return (self.mix.eight_output if eight else self.mix.attn_output) or self.base
        if "ffn_down" in name:
            return self.ffn_down(name)
        return self.base

    def attn_v(self) -> Kind:
        kind = self.mix.attn_v(self.i_attn_v, self.n_attn_v, self.traits) or self.base
        self.i_attn_v += 1
        if self.traits.n_experts == 8:  # small beside the experts
            return Kind.Q8_0
        if self.traits.is_70b and kind in (Kind.Q3_K, Kind.Q4_K):
            return Kind.Q5_K
        return kind

    def ffn_down(self, name: str) -> Kind:
        block, n_blocks = _order(name)[0], self.traits.n_blocks
        layer = block if self.traits.n_experts > 1 else self.i_ffn_down
        self.i_ffn_down += 1
        return self.mix.ffn_down(layer, n_blocks, self.traits) or self.base
