"""What a checkpoint says of its own number formats, and which of its tensors are packed.

Owns the names of quantization methods, the layouts of FP8 scales that configurations declare, and
telling tensors that belong to a method from weights. Knows nothing of arithmetic or families.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.card import optional

Block = tuple[int, int]

# What stands beside or instead of a weight that a method has packed: suffixes of the module's name.
# A weight of whose kind there are several is the first that fits.
_PACKED = (
    ("qweight", "GPTQ or AWQ"), ("weight_packed", "compressed-tensors"),
    ("weight.absmax", "bitsandbytes"), ("SCB", "bitsandbytes"), ("weight_scale_2", "NVFP4"),
    ("weight_blocks", "MXFP4"), ("compressed", "compressed-tensors, sparse"),
    ("bitmask", "compressed-tensors, sparse"), ("weight._data", "quanto"), ("W_q", "HQQ"),
    ("codes", "AQLM"), ("Qidxs", "QuIP"), ("indices", "VPTQ"), ("B", "Marlin"),
    ("weight_scales", "EETQ"), ("trellis", "EXL3"), ("q_weight", "EXL2"),
)  # fmt: skip
# Files that name the method where config.json does not.
_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
# The last parts of names of scales that are of no use here: llama.cpp computes with activations and
# caches of its own formats.
_UNUSED = re.compile(
    r"(^|\.|_)([qkv]|kv|prob|input|output|act|activation)_(scale|scale_inv|scale_ub|zero_point)$"
)
SCALES = ("_scale_inv", "_scale")  # behind a weight's name


@dataclass(frozen=True)
class Quantization:
    """method: as the configuration calls it, "" for none; blocks: of FP8 scales, as declared"""

    method: str = ""
    n_bits: int | None = None
    blocks: tuple[Block, ...] = ()
    transforms: bool = False  # whether inputs are rotated while the model runs

    @property
    def shown(self) -> str:
        """For people: "gptq, 4 bits"."""
        return f"{self.method}, {self.n_bits} bits" if self.n_bits else self.method

    def refusal(self, name: str, packed: str = "") -> str:
        """Why a tensor cannot be read."""
        method = self.shown or packed
        return (
            f"{name}: quantized{f' ({method})' if method else ''}; mtp-convert reads F32, F16, "
            "BF16 and FP8: convert the checkpoint that this one was made from"
        )


def quantization_of(config: Mapping[str, Any], folder: Path) -> Quantization:
    """By config.json, or the files that quantizers leave beside it."""
    found = config.get("quantization_config") or config.get("compression_config")
    for name in _FILES:
        if not isinstance(found, dict):
            beside = optional(folder / name)
            found = beside.get("quantization", beside) or None
    if not isinstance(found, dict):
        return Quantization()
    algorithm = found.get("quant_algo")
    method = found.get("quant_method", algorithm or found.get("quantization_type", "unknown"))
    groups = [*_weights(found)]
    bits = [found.get("bits"), found.get("w_bit"), *(group.get("num_bits") for group in groups)]
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        bits.append(4 if found.get("load_in_4bit") else 8)
    named = [n for n in bits if type(n) is int]
    format_ = found.get("format")
    return Quantization(
        str(method)[:40] + (f", {str(format_)[:40]}" if isinstance(format_, str) else ""),
        named[0] if named else None,
        tuple(_blocks(found, groups)),
        bool(found.get("transform_config")),
    )


def _weights(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """compressed-tensors' groups: how their weights are stored."""
    groups = found.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            yield weights


def _blocks(found: Mapping[str, Any], groups: list[Mapping[str, Any]]) -> Iterator[Block]:
    declared = [found.get("weight_block_size"), *(group.get("block_structure") for group in groups)]
    for block in declared:
        if isinstance(block, list) and len(block) == 2 and all(_is_size(n) for n in block):
            yield block[0], block[1]
    for group in (found, *groups):
        size = group.get("group_size")
        if _is_size(size):
            yield 1, int(str(size))


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def packed(name: str, names: Collection[str]) -> str | None:
    """The method that a weight of that name was packed by, if one has; None where it is plain."""
    stem, _, last = name.rpartition(".")
    starts = [f"{stem}."] if last == "weight" else [f"{name}.", f"{name}_"]
    for start in starts:
        for suffix, method in _PACKED:
            tail = suffix if last == "weight" else suffix.removeprefix("weight_")
            if start + tail in names:
                return method
    return None


def is_unused_scale(name: str) -> bool:
    """Whether it scales activations or a cache of keys and values."""
    return _UNUSED.search(name) is not None


def check_transforms(quantization: Quantization, where: str) -> None:
    """Rotated inputs are a computation that no GGUF announces."""
    if quantization.transforms:
        raise MtpError(
            f"{where}: quantization_config: transform_config: inputs that are rotated while the "
            "model runs; llama.cpp has nothing of the kind"
        )
