"""The tiny models that tests ask for by name."""

from __future__ import annotations

from collections.abc import Callable

import gguf

from tests.engine import tiny

Q8_0 = gguf.GGMLQuantizationType.Q8_0
Q4_0 = gguf.GGMLQuantizationType.Q4_0
SPECS: dict[str, Callable[[], tiny.Spec]] = {
    "llama": tiny.llama,
    "llama-q8_0": lambda: tiny.llama().quantized(Q8_0),
    "llama-q4_0": lambda: tiny.llama().quantized(Q4_0),
    "llama-deep": lambda: tiny.llama(n_blocks=4),
    "qwen2": tiny.qwen2,
    "gemma2": tiny.gemma2,
    "mimo2": tiny.mimo2,
    "mamba": tiny.mamba,
    "jamba": tiny.jamba,
    "qwen3next": tiny.qwen3next,
    "qwen35": tiny.qwen35,
    "lfm2": tiny.lfm2,
    "lfm2-window": lambda: tiny.lfm2(window=tiny.WINDOW),
    "heads": lambda: tiny.heads_for(tiny.llama(), hidden="pre_norm"),
    "heads-q8_0": lambda: tiny.heads_for(tiny.llama(), hidden="pre_norm").quantized(Q8_0),
    "heads-post": lambda: tiny.heads_for(tiny.llama(), hidden="post_norm"),
    "heads-trimmed": lambda: tiny.heads_for(tiny.llama(), hidden="pre_norm", n_draft=100),
}
