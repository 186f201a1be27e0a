"""Block drafters computed with numpy alone: what the engine's must be.

Written from the file format and the papers (DFlash, arXiv:2602.06036); imports nothing of the
engine. Reads the tensors of a `tiny.Spec`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tests.engine.tiny import D_HEAD, EPS, N_HEAD, Floats, Spec

_N_KV = 2


class Cell(NamedTuple):
    position: int
    key: Floats
    value: Floats


class Place(NamedTuple):
    """What one place of a block says: logits of ids, and how sure it is of the likeliest."""

    ids: list[int]
    logits: Floats
    prob: float


class NumpyBlock:
    """Cells of each layer; blocks leave none behind.

    target: whose embedding and output it shares, where it has none
    """

    def __init__(self, spec: Spec, target: Spec) -> None:
        self._tensors = {
            name: target.tensors[name] for name in ("token_embd.weight", "output.weight")
        } | spec.tensors
        self._keys = {name.removeprefix("dflash."): value for name, value in spec.keys.items()}
        self._mask = spec.keys["tokenizer.ggml.mask_token_id"]
        self._d2t = spec.integers.get("d2t")
        self._layers = range(self._keys["block_count"])
        self._cells: list[list[Cell]] = [[] for _ in self._layers]

    def take(self, rows: Floats, first: int) -> None:
        """(n, n_layers * n_embd) of the target's rows, at positions from `first` on."""
        for position, row in enumerate(rows, first):
            given = self._normed(self._tensors["fc.weight"] @ row, self._of("enc.output_norm"))
            for layer in self._layers:
                self._cells[layer].append(self._cell(layer, given, position))

    def _of(self, name: str) -> Floats:
        return self._tensors[f"{name}.weight"]

    def _normed(self, row: Floats, weight: Floats) -> Floats:
        scale = np.sqrt(np.mean(row * row, axis=-1, keepdims=True) + self._keys[EPS])
        return np.asarray(row / scale * weight, np.float32)

    def _cell(self, layer: int, row: Floats, position: int) -> Cell:
        block = f"blk.{layer}"
        keys = (self._of(f"{block}.attn_k") @ row).reshape(-1, D_HEAD)
        values = (self._of(f"{block}.attn_v") @ row).reshape(-1, D_HEAD)
        keys = self._normed(keys, self._of(f"{block}.attn_k_norm"))
        return Cell(position, _turned(keys, position), values)

    def rows(self, newest: int, position: int) -> tuple[Floats, Floats]:
        """Logits over the target's ids, and the rows that they are made of, of a block."""
        ids = [newest, *[self._mask] * (self._keys["block_size"] - 1)]
        x = self._tensors["token_embd.weight"][ids]
        for layer in self._layers:
            block = f"blk.{layer}"
            y = self._normed(x, self._of(f"{block}.attn_norm"))
            moved = self._moved(f"{block}.attn_conv", y)
            attended = self._attended(layer, moved(y, 0), position)
            x = x + moved(attended @ self._of(f"{block}.attn_output").T, 1)
            y = self._normed(x, self._of(f"{block}.ffn_norm"))
            moved = self._moved(f"{block}.ffn_conv", y)
            x = x + moved(self._fed(block, moved(y, 0)), 1)
        hidden = self._normed(x, self._of("output_norm"))
        return self._spread(hidden @ self._of("output").T, -np.inf), hidden

    def _fed(self, block: str, y: Floats) -> Floats:
        gate = y @ self._of(f"{block}.ffn_gate").T
        up = y @ self._of(f"{block}.ffn_up").T
        return np.asarray((gate / (1 + np.exp(-gate)) * up) @ self._of(f"{block}.ffn_down").T)

    def _spread(self, own: Floats, elsewhere: float) -> Floats:
        """(n, n_draft) -> (n, n_vocab)"""
        if self._d2t is None:
            return own
        found = np.full((len(own), self._keys["vocab_size"]), elsewhere, np.float32)
        found[:, self._d2t] = own
        return found

    def _attended(self, layer: int, rows: Floats, position: int) -> Floats:
        new = [self._cell(layer, row, position + i) for i, row in enumerate(rows)]
        queries = (rows @ self._of(f"blk.{layer}.attn_q").T).reshape(len(rows), -1, D_HEAD)
        queries = self._normed(queries, self._of(f"blk.{layer}.attn_q_norm"))
        return np.stack([
            self._attends(layer, _turned(query, position + i), position + i, new).ravel()
            for i, query in enumerate(queries)
        ])  # fmt: skip

    def _attends(self, layer: int, query: Floats, position: int, new: list[Cell]) -> Floats:
        seen = [c for c in [*self._cells[layer], *new] if self._sees(layer, position, c.position)]
        keys, values = (np.stack(part) for part in zip(*((c[1], c[2]) for c in seen), strict=True))
        out = []
        for head, one in enumerate(query):
            kv = head // (N_HEAD // _N_KV)
            scores = keys[:, kv] @ one / np.sqrt(D_HEAD)
            weights = np.exp(scores - scores.max())
            out.append((weights / weights.sum()) @ values[:, kv])
        return np.stack(out)

    def _sees(self, layer: int, query: int, key: int) -> bool:
        window = self._keys.get("attention.sliding_window", 0)
        is_in_window = not window or layer > 0 or query - key < window
        return is_in_window and (key <= query or not self._keys.get("attention.causal", False))

    def _moved(self, name: str, rows: Floats) -> _Moved:
        if f"{name}_proj.weight" not in self._tensors:
            return _Moved(None)
        base = self._tensors[f"{name}_base"]
        n_groups = base.shape[2] // self._keys["conv_group_size"]
        dynamic = rows @ self._of(f"{name}_proj").T
        coefficients = dynamic.reshape(len(rows), 2, base.shape[1], n_groups)
        spread = np.repeat(coefficients, self._keys["conv_group_size"], axis=3)
        return _Moved(np.asarray(spread + base, np.float32))

    def draft(self, newest: int, position: int, drafted: Sequence[int]) -> list[Place]:
        """What the places say that draft, where these ids were drafted but for the last."""
        logits, hidden = self.rows(newest, position)
        if "markov_w1.weight" in self._tensors:
            return self._chained([newest, *drafted], logits, hidden)
        if "selector_hidden.weight" in self._tensors:
            return self._walked([newest, *drafted], logits, hidden)
        return [_place(row) for row in logits[1 : 1 + len(drafted)]]

    def _chained(self, said: list[int], logits: Floats, hidden: Floats) -> list[Place]:
        places, first = [], 0 if self._keys["sample_from_anchor"] else 1
        for before, row, own in zip(said[:-1], logits[first:], hidden[first:], strict=False):
            embedded = self._of("markov_w1")[before]
            bias = (self._of("markov_w2") @ embedded)[np.newaxis]
            place = _place(row + self._spread(bias, 0.0)[0])
            if "conf_proj.weight" in self._tensors:
                both = np.concatenate([own, embedded])
                score = (self._of("conf_proj") @ both + self._tensors["conf_proj.bias"])[0]
                place = place._replace(prob=float(1 / (1 + np.exp(-score))))
            places.append(place)
        return places

    def _walked(self, said: list[int], logits: Floats, hidden: Floats) -> list[Place]:
        places = []
        for before, row, own in zip(said[:-1], logits[1:], hidden[1:], strict=False):
            ids = np.sort(np.argsort(row)[-self._keys["selector_top_k"] :])
            gated = self._of("selector_predecessor")[before] * (self._of("selector_hidden") @ own)
            scores = row[ids] + self._of("selector_successor")[ids] @ gated
            places.append(Place(ids.tolist(), scores, _place(scores).prob))
        return places


class _Moved:
    """A convolution over a block's rows, of coefficients (n, 2, n_taps, n_embd); none without."""

    def __init__(self, coefficients: Floats | None) -> None:
        self._coefficients = coefficients

    def __call__(self, rows: Floats, side: int) -> Floats:
        if self._coefficients is None:
            return rows
        found = np.zeros_like(rows)
        for tap in range(self._coefficients.shape[2]):
            before = np.concatenate([np.zeros_like(rows[:tap]), rows[: len(rows) - tap]])
            found += self._coefficients[:, side, tap] * before
        return found


def _place(logits: Floats) -> Place:
    shares = np.exp(logits - logits.max())
    return Place(list(range(len(logits))), logits, float(shares.max() / shares.sum()))


def _turned(heads: Floats, position: int) -> Floats:
    """Halves lie apart, as in NeoX; the axes of M-RoPE that text has are alike."""
    half = D_HEAD // 2
    angles = position * 10_000.0 ** (-np.arange(half) / half)
    left, right = heads[:, :half], heads[:, half:]
    cos, sin = np.cos(angles), np.sin(angles)
    turned = np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=1)
    return np.asarray(turned, np.float32)
