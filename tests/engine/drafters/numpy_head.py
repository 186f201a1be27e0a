"""A head that fuses rows of several layers, computed with numpy alone: what the engine's must be.

Written from the file format (docs/convert.md) and llama.cpp's `mimo2` MTP graph; imports nothing
of the engine. Reads the tensors of a `tiny.Spec`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.engine.tiny import D_HEAD, EPS, N_HEAD, Floats, Spec

_N_KV = 2


class NumpyHead:
    """Cells from a position on; every step adds one and gives its logits and its own row."""

    def __init__(self, spec: Spec, first: int) -> None:
        self._tensors = spec.tensors
        self._eps = spec.keys[f"mimo2.{EPS}"]
        self._position = first
        self._keys: list[Floats] = []
        self._values: list[Floats] = []

    def fuse(self, layers: Floats) -> Floats:
        """(n_layers * n_embd,) raw -> (n_embd,)"""
        weights = self._tensors["mtp.fuse.weight"]
        n_embd = len(weights)
        norms = self._tensors["mtp.fuse_norm.weight"].reshape(-1, n_embd)
        rows = layers.reshape(-1, n_embd)
        normed = [self._normed(row, norm) for row, norm in zip(rows, norms, strict=True)]
        return np.asarray(weights @ np.concatenate(normed), np.float32)

    def _normed(self, row: Floats, weight: Floats) -> Floats:
        return np.asarray(row / np.sqrt(np.mean(row * row) + self._eps) * weight, np.float32)

    def _of(self, name: str) -> Floats:
        return self._tensors[f"blk.0.{name}.weight"]

    def step(self, token: int, hidden: Floats) -> tuple[Floats, Floats]:
        """Logits, and the row before the head norm."""
        embedded = self._normed(self._tensors["token_embd.weight"][token], self._of("nextn.enorm"))
        given = self._normed(hidden, self._of("nextn.hnorm"))
        x = self._of("nextn.eh_proj") @ np.concatenate([embedded, given])
        qkv = self._of("attn_qkv") @ self._normed(x, self._of("attn_norm"))
        heads = qkv.reshape(-1, D_HEAD)
        queries, keys = self._turned(heads[:N_HEAD]), self._turned(heads[N_HEAD : N_HEAD + _N_KV])
        self._keys.append(keys)
        self._values.append(heads[N_HEAD + _N_KV :])
        self._position += 1
        x = x + self._of("attn_output") @ self._attended(queries).ravel()
        y = self._normed(x, self._of("ffn_norm"))
        gate = self._of("ffn_gate") @ y
        row = x + self._of("ffn_down") @ (gate / (1 + np.exp(-gate)) * (self._of("ffn_up") @ y))
        logits = self._tensors["output.weight"] @ self._normed(
            row, self._of("nextn.shared_head_norm")
        )
        return np.asarray(logits, np.float32), np.asarray(row, np.float32)

    def _turned(self, heads: Floats) -> Floats:
        half = D_HEAD // 2
        angles = self._position * 10_000.0 ** (-np.arange(half) / half)
        left, right = heads[:, :half], heads[:, half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=1)

    def _attended(self, queries: Floats) -> Floats:
        keys, values = np.stack(self._keys), np.stack(self._values)
        out = []
        for head, query in enumerate(queries):
            kv = head // (N_HEAD // _N_KV)
            scores = keys[:, kv] @ query / np.sqrt(D_HEAD)
            weights = np.exp(scores - scores.max())
            out.append((weights / weights.sum()) @ values[:, kv])
        return np.stack(out)


def draft_logits(
    spec: Spec, tokens: Sequence[int], rows: Floats, first: int, drafted: Sequence[int]
) -> list[Floats]:
    """The logits of a draft's steps.

    tokens:  those of the cells from position `first` on, the newest last
    rows:    (n_tokens, n_layers * n_embd), of the position before each
    drafted: what the steps but the last chose
    """
    head = NumpyHead(spec, first)
    for token, row in zip(tokens, rows, strict=True):
        logits, own = head.step(token, head.fuse(row))
    found = [logits]
    for token in drafted:
        logits, own = head.step(token, own)
        found.append(logits)
    return found
