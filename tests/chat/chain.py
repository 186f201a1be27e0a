"""A GGUF whose greedy answer is written by the test: each token has one that follows it.

One layer of zeros leaves an embedding as it is; the output matrix points from each token to the
next. So a chain can name a token only once, beside the bytes of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.engine import tiny

_BYTES = tiny.TOKENS[:256]
_GAIN = 5.0  # of the only logit that is not 0


def speaks(
    path: Path,
    chain: Sequence[str],
    *,
    after: str,
    control: Sequence[str],
    template: str | None,
    more: dict[str, Any] | None = None,
) -> Path:
    """Write a model that says `chain` after the token `after`; its last token ends the answer.

    control: tokens without text; other names are single bytes or become tokens of their own
    """
    tokens = [*_BYTES, "th", *control]
    tokens += [name for name in map(_spelled, chain) if name not in {*tokens}]
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    for name in control:
        kinds[tokens.index(name)] = gguf.TokenType.CONTROL
    width = -(-len(tokens) // 32) * 32
    said = np.zeros((len(tokens), width), np.float32)
    here = _index(tokens, after)
    for name in chain:
        there = _index(tokens, name)
        said[there, here], here = _GAIN, there
    keys: dict[str, Any] = {
        "llama.block_count": 1,
        "llama.context_length": 2048,
        "llama.embedding_length": width,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.eos_token_id": _index(tokens, chain[-1]),
        **({} if template is None else {"tokenizer.chat_template": template}),
        **(more or {}),
    }
    return tiny.Spec("llama", keys, _weights(said)).write(path)


def _weights(output: tiny.Floats) -> dict[str, tiny.Floats]:
    n_tokens, width = output.shape
    shapes = {
        **{f"attn_{name}": (width, width) for name in ("q", "k", "v", "output")},
        "ffn_gate": (32, width),
        "ffn_up": (32, width),
        "ffn_down": (width, 32),
    }
    return {
        "token_embd.weight": np.eye(n_tokens, width, dtype=np.float32),
        "output.weight": output,
        "output_norm.weight": np.ones(width, np.float32),
        **{f"blk.0.{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()},
        **{f"blk.0.{name}_norm.weight": np.ones(width, np.float32) for name in ("attn", "ffn")},
    }


def _spelled(text: str) -> str:
    """As GPT-2's vocabulary spells it."""
    letters = dict(zip(_byte_order(), _BYTES, strict=True))
    return "".join(letters[byte] for byte in text.encode())


def _byte_order() -> list[int]:
    """The byte that each of GPT-2's 256 letters stands for, in the order of `_BYTES`."""
    shown = [ord(letter) for letter in _BYTES if ord(letter) < 256]
    return shown + [byte for byte in range(256) if byte not in shown]


def _index(tokens: Sequence[str], name: str) -> int:
    return tokens.index(_spelled(name))
