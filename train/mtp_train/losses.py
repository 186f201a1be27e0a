"""Cross entropy of the head against the target's distribution, without keeping the logits.

The draft vocabulary is wide and the positions are many, so the logits are made, used and dropped
in blocks that stay in the cache; the gradient is taken on the way. Knows only rows and matrices.
"""

# mypy: disallow-subclassing-any=False
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK_ROWS = 256
_NEVER = -1e4  # a logit whose probability is zero in float32


@dataclass(frozen=True)
class Adopted:
    """Columns behind those of the draft vocabulary: ids that a text holds, with the target's rows.

    output: (n_adopted, n_embd); known: (n, n_adopted) bool, which of them are there for each row
    """

    output: Tensor
    known: Tensor

    def of(self, rows: Tensor) -> Adopted:
        """For some of the rows."""
        return Adopted(self.output, self.known[rows])


class _BlockedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        output: Tensor,
        targets: Tensor,
        weights: Tensor,
        adopted: Adopted | None,
    ) -> Tensor:
        matrix = _with_adopted(output, adopted, targets.dtype)
        d_rows = torch.empty_like(rows)
        d_output = torch.zeros_like(output) if output.requires_grad else None
        total = rows.new_zeros((), dtype=torch.float32)
        for i in range(0, len(rows), BLOCK_ROWS):
            block = slice(i, i + BLOCK_ROWS)
            narrow = rows[block].to(matrix.dtype)
            logits = _logits(narrow, matrix, adopted, block)
            wanted, weight = targets[block].float(), weights[block, None]
            normalizer = logits.logsumexp(-1, keepdim=True)
            total += (weight * (normalizer - (wanted * logits).sum(-1, keepdim=True))).sum()
            slope = (logits - normalizer).exp_().sub_(wanted).mul_(weight).to(matrix.dtype)
            d_rows[block] = (slope @ matrix).to(rows.dtype)
            if d_output is not None:
                d_output += slope[:, : len(output)].T @ narrow
        ctx.save_for_backward(d_rows, d_output)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_rows, d_output = ctx.saved_tensors
        d_output = None if d_output is None else grads[0] * d_output
        return grads[0] * d_rows, d_output, None, None, None


def blocked_cross_entropy(
    rows: Tensor,
    output: Tensor,
    targets: Tensor,
    weights: Tensor,
    adopted: Adopted | None = None,
) -> Tensor:
    """sum_i weights_i * CE(targets_i, softmax(output @ rows_i)), in targets' precision.

    rows: (n, n_embd) float32 after the head norm; output: (n_draft, n_embd);
    targets: (n, n_draft + n_adopted) probabilities; weights: (n,).
    """
    total: Tensor = _BlockedCrossEntropy.apply(rows, output, targets, weights, adopted)
    return total


def target_distribution(
    rows: Tensor,
    output: Tensor,
    temperature: float,
    dtype: torch.dtype,
    adopted: Adopted | None = None,
) -> Tensor:
    """softmax(output @ rows / temperature) over the draft vocabulary and what is adopted:
    (n, n_draft + n_adopted) in dtype.

    rows: (n, n_embd) the target's rows after its output norm.
    """
    matrix = _with_adopted(output, adopted, dtype)
    targets = torch.empty(len(rows), len(matrix), dtype=dtype, device=rows.device)
    for i in range(0, len(rows), BLOCK_ROWS):
        block = slice(i, i + BLOCK_ROWS)
        logits = _logits(rows[block].to(dtype), matrix, adopted, block)
        targets[block] = (logits / temperature).softmax(-1).to(dtype)
    return targets


def _with_adopted(output: Tensor, adopted: Adopted | None, dtype: torch.dtype) -> Tensor:
    matrix = output.detach().to(dtype)
    return matrix if adopted is None else torch.cat((matrix, adopted.output.to(dtype)))


def _logits(rows: Tensor, matrix: Tensor, adopted: Adopted | None, block: slice) -> Tensor:
    logits = (rows @ matrix.T).float()
    if adopted is not None:
        known = adopted.known[block]
        logits[:, -known.shape[1] :].masked_fill_(~known, _NEVER)
    return logits
