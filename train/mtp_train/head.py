"""The MTP head as a PyTorch module: the same arithmetic as llama.cpp's `mimo2` MTP graph.

Owns the forward pass (first draft step on true rows, later steps on the head's own rows) and
the starting weights. Knows nothing of files, corpora or optimizers. Follows `graph_mtp` in
llama.cpp's src/models/mimo2.cpp; the later steps follow EAGLE-3's training-time test
(arXiv:2503.01840).

Positions: index i of every array is one position of the text. The head takes the token x_i and
the target's row of position i-1, and predicts x_{i+1}. Row convention `pre_norm`: only the
direction of a row matters, since `hnorm` removes its scale.
"""

# mypy: disallow-subclassing-any=False
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtp_train.shape import HeadShape

# Matrices whose product is added to the residual stream: at half size, so that it starts calm.
_ADDED = ("attn_output", "ffn_down")
# Of a final row, against the fused ones that it is added to, which start at a root mean square of
# one: a head that read final rows alone reads nearly the same.
START_FINAL_SCALE = 3.0


@dataclass(frozen=True)
class Keys:
    """Keys and values of one draft step: (batch, n_head_kv, n, head_dim)."""

    k: Tensor
    v: Tensor

    def of(self, sequences: Tensor) -> Keys:
        """Those of some of the batch's sequences."""
        return Keys(self.k[sequences], self.v[sequences])


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in neox order (first half against second half) on the first values of
    (..., n, head_dim): as many as cos and sin are for."""
    left, right, rest = x.float().split((n := cos.shape[-1], n, x.shape[-1] - 2 * n), -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin, rest), -1).to(x.dtype)


def shifted(x: Tensor, by: int) -> Tensor:
    """x moved `by` places later along dimension -2; the first rows become zero."""
    return F.pad(x[..., : x.shape[-2] - by, :], (0, 0, by, 0))


class Block(nn.Module):
    """One MTP block: fusion of token and row, attention, FFN."""

    enorm: Tensor
    hnorm: Tensor
    attn_norm: Tensor
    ffn_norm: Tensor
    head_norm: Tensor
    sinks: Tensor
    eh_proj: Tensor
    qkv: Tensor
    attn_output: Tensor
    ffn_gate: Tensor
    ffn_up: Tensor
    ffn_down: Tensor

    def __init__(self, shape: HeadShape):
        super().__init__()
        self.shape = shape
        for name, size in shape.block_vectors().items():
            self.register_parameter(name, nn.Parameter(torch.ones(size)))
        for name, (n_out, n_in) in shape.block_matrices().items():
            start = torch.randn(n_out, n_in) / math.sqrt(n_in)
            if name in _ADDED:
                start /= 2
            self.register_parameter(name, nn.Parameter(start))

    def rope(self, n: int) -> tuple[Tensor, Tensor]:
        half = self.shape.n_rotated // 2
        device = self.eh_proj.device
        rates = self.shape.rope_base ** (-torch.arange(half, device=device).float() / half)
        angles = torch.arange(n, device=device).float()[:, None] * rates
        return angles.cos(), angles.sin()

    def keys(self, embedded: Tensor, hidden: Tensor) -> Keys:
        """The keys of rows that this block reads and does not draft from."""
        return self._read(embedded, hidden)[2]

    def step(
        self,
        embedded: Tensor,
        hidden: Tensor,
        earlier: Sequence[Keys],
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Keys]:
        """One draft step at every position at once.

        embedded: (batch, n, n_embd), the tokens' embeddings; hidden: (batch, n, n_embd), the row
        of position i-1 at index i; earlier: this block's keys of the draft steps before this one,
        first step first. A query at position i sees the first step's keys up to the start of its
        own chain, then its chain's own keys. wanted: (batch, n) bool, where a row is asked for;
        elsewhere it is zero. Returns the rows before the head norm (the next step's hidden rows are
        these, one place later) and this step's keys.
        """
        s = self.shape
        x, q, keys = self._read(embedded, hidden)
        attended = self._attend(q, [*earlier, keys]) * s.value_scale
        if wanted is None:
            return self._finished(x, attended), keys
        found = self._finished(x[wanted], attended[wanted])
        rows = found.new_zeros(*x.shape[:-1], found.shape[-1])
        return rows.index_put((wanted,), found), keys

    def _finished(self, x: Tensor, attended: Tensor) -> Tensor:
        """The residual stream with what attention found, through the FFN."""
        x = x + F.linear(attended, self.attn_output)
        y = rms_norm(x, self.ffn_norm, self.shape.rms_eps)
        gated = F.silu(F.linear(y, self.ffn_gate)) * F.linear(y, self.ffn_up)
        return x + F.linear(gated, self.ffn_down)

    def _read(self, embedded: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Keys]:
        """The residual stream, its queries and its keys."""
        s = self.shape
        n_batch, n, _ = embedded.shape
        e = rms_norm(embedded, self.enorm, s.rms_eps)
        h = rms_norm(hidden, self.hnorm, s.rms_eps)
        x = F.linear(torch.cat((e, h), -1), self.eh_proj)
        qkv = F.linear(rms_norm(x, self.attn_norm, s.rms_eps), self.qkv)
        q, k, v = (
            part.view(n_batch, n, n_heads, -1).transpose(1, 2)
            for part, n_heads in zip(
                qkv.split((s.n_q, s.n_kv, s.n_head_kv * s.n_value), -1),
                (s.n_head, s.n_head_kv, s.n_head_kv),
                strict=True,
            )
        )
        cos, sin = self.rope(n)
        return x, rotate(q, cos, sin), Keys(rotate(k, cos, sin), v)

    def _attend(self, q: Tensor, steps: list[Keys]) -> Tensor:
        """q: (batch, n_head, n, head_dim); steps: the keys of every step up to this one."""
        s = self.shape
        n_batch, _, n, _ = q.shape
        groups = s.n_head // s.n_head_kv
        q = q.reshape(n_batch, s.n_head_kv, groups, n, s.head_dim)
        if len(steps) == 1 and not s.has_sinks and not s.window:
            k, v = (t.repeat_interleave(groups, 1) for t in (steps[0].k, steps[0].v))
            out = F.scaled_dot_product_attention(q.flatten(1, 2), k, v, is_causal=True)
        else:
            out = self._attend_chains(q, steps).flatten(1, 2)
        return out.transpose(1, 2).reshape(n_batch, n, -1)

    def _attend_chains(self, q: Tensor, steps: list[Keys]) -> Tensor:
        """Scores over the first step's keys, one column for each later step's key, and one for
        the sink."""
        n, behind = q.shape[-2], len(steps) - 1
        scale = 1 / math.sqrt(self.shape.head_dim)
        first = (q.flatten(2, 3) @ steps[0].k.transpose(-1, -2)).view(*q.shape[:-1], n)
        ones = torch.ones(n, n, dtype=torch.bool, device=q.device)
        hidden = ones.triu(1 - behind)
        if self.shape.window:
            hidden |= ones.tril(-self.shape.window)
        columns = [first.masked_fill(hidden, float("-inf"))]
        own = [
            Keys(shifted(keys.k, behind - j), shifted(keys.v, behind - j))
            for j, keys in enumerate(steps[1:], 1)
        ]
        columns += [(q * keys.k[:, :, None]).sum(-1, keepdim=True) for keys in own]
        scores = torch.cat(columns, -1).float() * scale
        if self.shape.has_sinks:
            sinks = self.sinks.view(1, q.shape[1], q.shape[2], 1, 1)
            scores = torch.cat((scores, sinks.expand(*q.shape[:-1], 1)), -1)
        weights = scores.softmax(-1).to(q.dtype)
        value_shape = (*q.shape[:-1], self.shape.n_value)
        out = (weights[..., :n].flatten(2, 3) @ steps[0].v).view(value_shape)
        for j, keys in enumerate(own):
            out = out + weights[..., n + j, None] * keys.v[:, :, None]
        return out


class Head(Block):
    """One MTP block over a draft vocabulary, or several in a chain."""

    token_embd: Tensor
    row_scale: Tensor
    fuse_norm: Tensor
    fuse: Tensor
    final_norm: Tensor

    def __init__(
        self,
        shape: HeadShape,
        token_embd: Tensor,
        output: Tensor,
        row_scale: Tensor | None = None,
    ):
        """token_embd, output: (n_draft, n_embd), the target's rows of the draft ids;
        row_scale: (n_embd,) what turns a final row into the one it reads; ones without."""
        super().__init__(shape)
        scale = torch.ones(shape.n_embd) if row_scale is None else row_scale.clone()
        self.register_buffer("row_scale", scale, persistent=False)
        self.register_buffer("token_embd", token_embd.clone(), persistent=False)
        self.output = nn.Parameter(output.clone().float())
        self.more = nn.ModuleList(Block(shape) for _ in range(shape.n_blocks - 1))
        if shape.fused_layers:
            n_in = shape.n_fused
            self.fuse_norm = nn.Parameter(torch.ones(n_in))
            self.fuse = nn.Parameter(torch.randn(shape.n_embd, n_in) / math.sqrt(n_in))
        if shape.with_final:
            unit = scale / scale.square().mean().sqrt()
            self.final_norm = nn.Parameter(START_FINAL_SCALE * unit)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite parameters by name, e.g. with the target's last layer."""
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)

    def matrices(self) -> list[nn.Parameter]:
        """The two-dimensional weights but `output`."""
        return [self.get_parameter(name) for name in self.shape.matrices()]

    def norms(self) -> list[nn.Parameter]:
        return [self.get_parameter(name) for name in self.shape.norms()]

    @property
    def max_depth(self) -> int | None:
        """How many draft steps it has; None where one block is reused for all."""
        return self.shape.n_blocks if self.more else None

    def block(self, step: int) -> Block:
        """The block of a draft step, from 0 on."""
        found = self.more[step - 1] if self.more and step else self
        assert isinstance(found, Block)
        return found

    def read(self, rows: Tensor) -> Tensor:
        """The target's rows as the first draft step takes them: (..., n_embd).

        rows: (..., n_embd) final rows, or (..., n_fused) rows of the fused layers side by side,
        each divided by its root mean square; or both, behind one another.
        """
        if not self.shape.fused_layers:
            return rows * self.row_scale
        fused = F.linear(rows[..., : self.shape.n_fused] * self.fuse_norm, self.fuse)
        if not self.shape.with_final:
            return fused
        final = rows[..., self.shape.n_fused :]
        return fused + rms_norm(final, self.final_norm, self.shape.rms_eps)

    def unroll(
        self, tokens: Tensor, rows: Tensor, n_steps: int, adopted: Tensor | None = None
    ) -> list[Tensor]:
        """The rows before the head norm of draft steps 1..n_steps, each (batch, n, n_embd).

        rows: (batch, n, ...) as `read` takes them, those of position i-1 at index i;
        adopted: see `Chains`.
        """
        chains = Chains(self, tokens, self.read(rows), adopted)
        return [chains.step() for _ in range(n_steps)]

    def logits(self, rows: Tensor, step: int = 0) -> Tensor:
        """rows before the head norm -> logits over the draft vocabulary."""
        return F.linear(self.normed(rows, step), self.output)

    def normed(self, rows: Tensor, step: int) -> Tensor:
        """rows before the head norm of a draft step, from 0 on -> rows after it."""
        return rms_norm(rows, self.block(step).head_norm, self.shape.rms_eps)


class Chains:
    """Draft steps at every position at once, each a step further in the chains that start there.

    tokens: (batch, n) draft ids; hidden: (batch, n, n_embd), the true row of position i-1 at
    index i; adopted: (n_adopted, n_embd), embeddings of the ids from n_draft on. A reused block's
    keys are kept. Chained blocks each read all rows again.
    """

    def __init__(self, head: Head, tokens: Tensor, hidden: Tensor, adopted: Tensor | None = None):
        self._head = head
        table = head.token_embd if adopted is None else torch.cat((head.token_embd, adopted))
        self._embedded = F.embedding(tokens, table)
        self._read = [hidden]  # what each step reads
        self._keys: list[Keys] = []

    def step(self, wanted: Tensor | None = None) -> Tensor:
        """The next step's rows before the head norm: (batch, n, n_embd); see `Block.step`."""
        block = self._head.block(len(self._read) - 1)
        if self._head.max_depth is not None:
            self._keys = [block.keys(self._embedded, rows) for rows in self._read[:-1]]
        out, own = block.step(self._embedded, self._read[-1], self._keys, wanted)
        self._keys.append(own)
        self._read.append(shifted(out, 1))
        return out

    def keep(self, sequences: Tensor) -> None:
        """Go on with some of the batch's sequences."""
        self._embedded = self._embedded[sequences]
        self._read = [rows[sequences] for rows in self._read]
        self._keys = [keys.of(sequences) for keys in self._keys]
