"""How much memory a model will take, by its header alone: weights, cache, state, heads, buffers.

Weights, cache and state are what llama.cpp allocates, to the byte but for padding. Its buffers for
computing depend on its graphs and are estimated. Knows nothing of what is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from mtp_cli import head_file
from mtp_cli.engine.backend.cache import F16, TYPES, CacheTypes
from mtp_cli.engine.files import gguf_header
from mtp_cli.engine.files.gguf_header import Header
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH, N_CTX, N_OUTPUTS

_CELLS = 256  # llama.cpp gives a cache as many, or a multiple
_ROWS = 512  # of a prompt, computed at once
_FLOAT, _MASK = 4, 2  # bytes of a number of a row, and of a mask
_SHARE_LAID_OUT = 0.7  # of the free memory, that weights may take which cannot go back to the disk
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
# Architectures that keep as many recurrent states as can be drafted, to go back to one of them.
_ROLLS_BACK = (
    "bailingmoe3", "deepseek4", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen35",
    "qwen35moe",
)  # fmt: skip
# Those whose own context keeps cells for the layers of heads, too, which it never fills.
_HOLDS_HEADS = ("bailingmoe3",)
_Block = Mapping[str, tuple[int, ...]]  # shapes of its tensors, by their names in it


@dataclass(frozen=True)
class Estimate:
    """Bytes of memory.

    n_ctx:   tokens of the context that it is for
    weights: all tensors of the model's file; what is not laid out anew can also stay on the disk
    cache:   keys and values of every token
    state:   of recurrent layers, whatever the context, with those kept to go back to
    heads:   what drafts: weights that lie in a file of their own, and its cache
    compute: buffers, estimated
    """

    n_ctx: int
    weights: int
    cache: int
    state: int
    heads: int
    compute: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.state + self.heads + self.compute

    def parts(self) -> Iterator[tuple[str, int]]:
        """What there is of it, for people."""
        named = (
            ("weights", self.weights),
            (f"context of {self.n_ctx:,} tokens", self.cache),
            ("recurrent state", self.state),
            ("what drafts", self.heads),
            ("buffers, about", self.compute),
        )
        yield from ((name, n_bytes) for name, n_bytes in named if n_bytes)


@dataclass(frozen=True)
class Machine:
    """Bytes of memory here, and those that are free now."""

    total: int
    free: int

    @classmethod
    def here(cls) -> Machine:
        memory = psutil.virtual_memory()
        return cls(memory.total, memory.available)


def estimate(
    shards: Sequence[Header],
    *,
    n_ctx: int | None = None,
    cache: CacheTypes = F16,
    heads: Path | None = None,
    draft_model: Path | None = None,
) -> Estimate:
    """What a target takes, and what drafts for it: heads of its own or in a file, or a model."""
    first = shards[0]
    n_trained = first.number("context_length")
    n_ctx = n_ctx or min(N_CTX, n_trained or N_CTX)
    blocks = _blocks(shards)
    target = {i: tensors for i, tensors in blocks.items() if i < first.n_target_layers}
    own = {i: tensors for i, tensors in blocks.items() if i not in target}
    is_held = first.architecture in _HOLDS_HEADS
    drafts = _heads_cache(first, own, n_ctx)
    if heads is not None:
        drafts = _beside(gguf_header.read_header(heads), n_ctx)
    elif draft_model is not None:
        drafts = _small_model(draft_model, n_ctx)
    return Estimate(
        n_ctx,
        _weights(shards),
        _cache_bytes(first, blocks if is_held else target, n_ctx, cache)
        + _scorers_bytes(target, n_ctx, cache)
        + _compressed_bytes(target, n_ctx, cache),
        _state_bytes(first, target),
        drafts,
        _compute_bytes(shards, n_ctx),
    )


def _weights(shards: Sequence[Header]) -> int:
    return sum(entry.n_bytes for header in shards for entry in header.tensors.values())


def _beside(heads: Header, n_ctx: int) -> int:
    """A head file: its weights, and a cache unless it reads its target's."""
    weights = sum(entry.n_bytes for entry in heads.tensors.values())
    if gguf_header.is_assistant(heads):
        return weights
    return weights + _heads_cache(heads, _blocks([heads]), n_ctx, _n_prompt(heads))


def _n_prompt(heads: Header) -> int:
    """Rows of a prompt that are remembered beside those of an answer, and of a block."""
    if gguf_header.is_eagle3(heads):
        return TUNING.heads.n_prompt_eagle3
    if gguf_header.is_block(heads):
        return TUNING.heads.n_prompt_block + heads.number("block_size")
    n_rows = heads.pairs.get(head_file.KEY_PROMPT_ROWS)
    return n_rows if isinstance(n_rows, int) else 0


def _heads_cache(
    header: Header, blocks: Mapping[int, _Block], n_ctx: int, n_prompt: int = 0
) -> int:
    """It is in F16, and heads remember no more than helps them."""
    return _cache_bytes(header, blocks, min(n_ctx, TUNING.heads.n_ctx + n_prompt), F16)


def _small_model(path: Path, n_ctx: int) -> int:
    return replace(
        estimate(gguf_header.read_shards(path), n_ctx=min(n_ctx, TUNING.small_model.n_ctx)), heads=0
    ).total


def _blocks(shards: Sequence[Header]) -> dict[int, dict[str, tuple[int, ...]]]:
    """By number: shapes of a block's tensors, by their names in it."""
    found: dict[int, dict[str, tuple[int, ...]]] = {}
    for header in shards:
        for entry in header.tensors.values():
            if match := _BLOCK.match(entry.name):
                found.setdefault(int(match[1]), {})[match[2]] = entry.shape
    return found


def _cache_bytes(
    header: Header, blocks: Mapping[int, _Block], n_ctx: int, cache: CacheTypes
) -> int:
    """Keys and values of all tokens, in sliding layers too: only so can a suffix be dropped."""
    n_cells = -(-n_ctx // _CELLS) * _CELLS
    widths = [_widths(header, number, block) for number, block in blocks.items()]
    return sum(n_cells * (_row(k, cache.k) + _row(v, cache.v)) for k, v in widths)


def _compressed_bytes(blocks: Mapping[int, _Block], n_ctx: int, cache: CacheTypes) -> int:
    """Keys that each stand for several (DeepSeek-V4), and those by which they are chosen."""
    found = 0
    for block in blocks.values():
        if "attn_compressor_norm.weight" not in block:
            continue
        n_keys = -(-n_ctx // _n_rows(block["attn_compressor_ape.weight"]))
        n_cells = -(-n_keys // _CELLS) * _CELLS
        norms = ("attn_compressor_norm.weight", "indexer_compressor_norm.weight")
        widths = [block[name][0] for name in norms if name in block]
        found += sum(n_cells * _row(width, cache.k) for width in widths)
    return found


def _scorers_bytes(blocks: Mapping[int, _Block], n_ctx: int, cache: CacheTypes) -> int:
    """Keys by which sparse attention chooses; heads attend to all and keep none."""
    n_cells = -(-n_ctx // _CELLS) * _CELLS
    scorers = [b["indexer.attn_k.weight"] for b in blocks.values() if "indexer.attn_k.weight" in b]
    return sum(n_cells * _row(_n_rows(shape), cache.k) for shape in scorers)


def _widths(header: Header, number: int, block: _Block) -> tuple[int, int]:
    """Numbers of a layer's keys and values for each token; none where it has no cache."""
    if "attn_kv_a_mqa.weight" in block:  # MLA keeps one row, of which the values are a part
        return _n_rows(block["attn_kv_a_mqa.weight"]), 0
    if "attn_kv.weight" in block:  # one row that is key and value
        return _n_rows(block["attn_kv.weight"]), 0
    if "ssm_conv1d_k.weight" in block:  # delta attention of Kimi's kind
        return 0, 0
    if "attn_k.weight" in block:
        keys = block["attn_k.weight"]
        return _n_rows(keys), _n_rows(block.get("attn_v.weight", keys))
    if "attn_qkv.weight" not in block or "ssm_conv1d.weight" in block:
        return 0, 0
    n_kv = _of_layer(header, "attention.head_count_kv", number)
    k, v = _head_widths(header)
    return n_kv * k, n_kv * v


def _n_rows(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else 1


def _of_layer(header: Header, key: str, number: int) -> int:
    value = header.pairs.get(f"{header.architecture}.{key}")
    if isinstance(value, np.ndarray):
        return int(value[number]) if number < len(value) else 0
    return header.number(key)


def _head_widths(header: Header) -> tuple[int, int]:
    usual = header.number("embedding_length") // max(1, header.number("attention.head_count"))
    k = header.number("attention.key_length") or usual
    return k, header.number("attention.value_length") or k


def _row(width: int, name: str) -> int:
    n_block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(TYPES[name])]
    return -(-width // int(n_block)) * int(n_bytes)


def _state_bytes(header: Header, blocks: Mapping[int, _Block]) -> int:
    n_states = 1 + (MAX_DEPTH if header.architecture in _ROLLS_BACK else 0)
    floats = sum(_state(header, block) for block in blocks.values())
    return n_states * _FLOAT * floats


def _state(header: Header, block: _Block) -> int:
    """Numbers in a layer's state: what a convolution still needs, and the state itself."""
    if "shortconv.conv.weight" in block:
        n_kept = max(0, header.number("shortconv.l_cache") - 1)
        return n_kept * header.number("embedding_length")
    if "attn_compressor_ape.weight" in block:  # keys that are not compressed yet, and their weights
        apes = (block.get(f"{name}_compressor_ape.weight", (0, 0)) for name in ("attn", "indexer"))
        n_windows = 2 if "indexer_compressor_ape.weight" in block else 1
        return sum(2 * n_windows * width * ratio for width, ratio in apes)
    if not any(name.startswith("ssm_") for name in block):
        return 0
    n_kept = max(0, header.number("ssm.conv_kernel") - 1)
    if width := header.number("kda.head_dim"):  # q, k and v of each head, and a square
        return header.number("attention.head_count") * width * (3 * n_kept + width)
    n_inner, n_state = header.number("ssm.inner_size"), header.number("ssm.state_size")
    n_convolved = n_inner + 2 * header.number("ssm.group_count") * n_state
    return n_kept * n_convolved + n_inner * n_state


def _compute_bytes(shards: Sequence[Header], n_ctx: int) -> int:
    """A mask for each kind of attention, rows of a prompt between the layers, logits."""
    first = shards[0]
    n_cells = -(-n_ctx // _CELLS) * _CELLS
    is_attentive = any(any(_widths(first, n, block)) for n, block in _blocks(shards).items())
    n_masks = (2 if first.number("attention.sliding_window") else 1) if is_attentive else 0
    n_ff = max(_most(first, "feed_forward_length"), _expert_width(first))
    widths = 4 * first.number("embedding_length") + 2 * n_ff + 2 * first.number("ssm.inner_size")
    logits = N_OUTPUTS * gguf_header.n_vocab(list(shards))
    return _ROWS * (n_masks * n_cells * _MASK + widths * _FLOAT) + logits * _FLOAT


def _most(header: Header, key: str) -> int:
    """Of a key that may be a number for each layer."""
    value = header.pairs.get(f"{header.architecture}.{key}")
    return int(value.max(initial=0)) if isinstance(value, np.ndarray) else header.number(key)


def _expert_width(header: Header) -> int:
    """Numbers between the two halves of a mixture's layer, of all experts that a row chooses."""
    return header.number("expert_feed_forward_length") * header.number("expert_used_count")


def fits_laid_out(shards: Sequence[Header]) -> bool:
    """Whether here all weights can be laid out in memory of their own, with room for what else is
    to be there. If not, they stay mapped from the file, of which the system drops what it must."""
    return _weights(shards) <= _SHARE_LAID_OUT * Machine.here().free


def shortage(name: str, needed: Estimate, machine: Machine) -> str | None:
    """A line about what will not fit, and what to do; None where all does."""
    wants = f"{name} takes about {size(needed.total)} of memory"
    if needed.total > machine.total:
        rest = needed.total - needed.weights
        how = (
            "cannot be held" if rest > machine.total else "will be read from the disk all the time"
        )
        return (
            f"{wants}, and this machine has {size(machine.total)}: it {how} (a smaller "
            f"quantization, or a --ctx below {needed.n_ctx:,}, takes less)"
        )
    if needed.total > machine.free:
        return (
            f"{wants}, and {size(machine.free)} are free now: it may be slow until other programs "
            f"end (a --ctx below {needed.n_ctx:,} takes less)"
        )
    return None


def size(n_bytes: float) -> str:
    """Bytes for people: 1.2 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e3:.1f} kB"
