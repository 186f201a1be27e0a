"""An EAGLE-3 drafter computed with numpy alone: what the engine's must be.

Written from the paper (arXiv:2503.01840) and the file format; imports nothing of the engine. Reads
the tensors of a `tiny.Spec`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.engine.tiny import D_HEAD, EPS, N_HEAD, Floats, Spec

_N_KV = 2


class NumpyEagle3:
    """Cells from a position on; every step adds one and gives its logits and its own row.

    target: whose embedding and output it shares, where it has none
    """

    def __init__(self, spec: Spec, target: Spec, first: int) -> None:
        self._tensors = {
            name: target.tensors[name] for name in ("token_embd.weight", "output.weight")
        } | spec.tensors
        self._keys = spec.keys
        self._eps = spec.keys[f"eagle3.{EPS}"]
        self._d2t = spec.integers.get("d2t")
        self._position = first
        self._cells: list[tuple[Floats, Floats]] = []

    def encoded(self, layers: Floats) -> Floats:
        """(n_layers * width,) -> (n_embd,)"""
        if self._keys["eagle3.norm_before_fc"]:
            layers = self._normed(layers, self._tensors["enc.output_norm.weight"])
        return np.asarray(self._tensors["fc.weight"] @ layers, np.float32)

    def _normed(self, row: Floats, weight: Floats) -> Floats:
        return np.asarray(row / np.sqrt(np.mean(row * row) + self._eps) * weight, np.float32)

    def _of(self, name: str) -> Floats:
        return self._tensors[f"blk.0.{name}.weight"]

    def step(self, token: int, hidden: Floats) -> tuple[Floats, Floats]:
        """Logits over its own ids, and the row before the last norm."""
        embedded = self._normed(self._tensors["token_embd.weight"][token], self._of("attn_norm"))
        given = self._normed(hidden, self._of("attn_norm_2"))
        both = np.concatenate([embedded, given])
        queries, keys, values = (
            (self._of(f"attn_{part}") @ both).reshape(-1, D_HEAD) for part in "qkv"
        )
        self._cells.append((self._turned(keys), values))
        attended = self._attended(self._turned(queries)).ravel()
        self._position += 1
        kept = given if self._keys["eagle3.norm_before_residual"] else hidden
        x = kept + self._of("attn_output") @ attended
        y = self._normed(x, self._of("ffn_norm"))
        gate = self._of("ffn_gate") @ y
        row = x + self._of("ffn_down") @ (gate / (1 + np.exp(-gate)) * (self._of("ffn_up") @ y))
        normed = self._normed(row, self._tensors["output_norm.weight"])
        logits = self._tensors["output.weight"] @ normed
        return np.asarray(logits, np.float32), np.asarray(row, np.float32)

    def spread(self, logits: Floats) -> Floats:
        """Logits over the target's ids: those it cannot draft are ruled out."""
        if self._d2t is None:
            return logits
        found = np.full(self._keys["eagle3.vocab_size"], -np.inf, np.float32)
        found[self._d2t] = logits
        return found

    def _turned(self, heads: Floats) -> Floats:
        """Pairs lie side by side, as in llama.cpp's `llama`."""
        half = D_HEAD // 2
        angles = self._position * 10_000.0 ** (-np.arange(half) / half)
        left, right = heads[:, ::2], heads[:, 1::2]
        cos, sin = np.cos(angles), np.sin(angles)
        turned = np.stack([left * cos - right * sin, right * cos + left * sin], axis=2)
        return turned.reshape(heads.shape)

    def _attended(self, queries: Floats) -> Floats:
        keys = np.stack([cell[0] for cell in self._cells])
        values = np.stack([cell[1] for cell in self._cells])
        out = []
        for head, query in enumerate(queries):
            kv = head // (N_HEAD // _N_KV)
            scores = keys[:, kv] @ query / np.sqrt(D_HEAD)
            weights = np.exp(scores - scores.max())
            out.append((weights / weights.sum()) @ values[:, kv])
        return np.stack(out)


def draft_logits(
    spec: Spec,
    target: Spec,
    tokens: Sequence[int],
    rows: Floats,
    first: int,
    drafted: Sequence[int],
    of: type[NumpyEagle3] = NumpyEagle3,
) -> list[Floats]:
    """The logits of a draft's steps, over the target's ids.

    tokens:  those of the cells from position `first` on, the newest last
    rows:    (n_tokens, n_layers * width), of the position before each
    drafted: what the steps but the last chose
    of:      how it computes
    """
    head = of(spec, target, first)
    for token, row in zip(tokens, rows, strict=True):
        logits, own = head.step(token, head.encoded(row))
    found = [head.spread(logits)]
    for token in drafted:
        logits, own = head.step(token, own)
        found.append(head.spread(logits))
    return found
