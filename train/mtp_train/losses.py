"""Cross entropy of the head against the target's distribution, without keeping the logits.

The draft vocabulary is wide and the positions are many, so the logits are made, used and dropped
in blocks that stay in the cache; the gradient is taken on the way. Knows only rows and matrices.
"""

# mypy: disallow-subclassing-any=False
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK_ROWS = 256


class _BlockedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        matrix = output.to(targets.dtype)
        d_rows = torch.empty_like(rows)
        d_output = torch.zeros_like(output) if output.requires_grad else None
        total = rows.new_zeros((), dtype=torch.float32)
        for i in range(0, len(rows), BLOCK_ROWS):
            block = slice(i, i + BLOCK_ROWS)
            narrow = rows[block].to(matrix.dtype)
            logits = (narrow @ matrix.T).float()
            wanted, weight = targets[block].float(), weights[block, None]
            normalizer = logits.logsumexp(-1, keepdim=True)
            total += (weight * (normalizer - (wanted * logits).sum(-1, keepdim=True))).sum()
            slope = (logits - normalizer).exp_().sub_(wanted).mul_(weight).to(matrix.dtype)
            d_rows[block] = (slope @ matrix).to(rows.dtype)
            if d_output is not None:
                d_output += slope.T @ narrow
        ctx.save_for_backward(d_rows, d_output)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_rows, d_output = ctx.saved_tensors
        return grads[0] * d_rows, None if d_output is None else grads[0] * d_output, None, None


def blocked_cross_entropy(rows: Tensor, output: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """sum_i weights_i * CE(targets_i, softmax(output @ rows_i)), in targets' precision.

    rows: (n, n_embd) float32 after the head norm; output: (n_draft, n_embd);
    targets: (n, n_draft) probabilities; weights: (n,).
    """
    total: Tensor = _BlockedCrossEntropy.apply(rows, output, targets, weights)
    return total


def target_distribution(
    rows: Tensor, output: Tensor, temperature: float, dtype: torch.dtype
) -> Tensor:
    """softmax(output @ rows / temperature) over the draft vocabulary: (n, n_draft) in dtype.

    rows: (n, n_embd) the target's rows after its output norm.
    """
    matrix = output.to(dtype)
    targets = torch.empty(len(rows), len(output), dtype=dtype, device=rows.device)
    for i in range(0, len(rows), BLOCK_ROWS):
        logits = (rows[i : i + BLOCK_ROWS].to(dtype) @ matrix.T).float()
        targets[i : i + BLOCK_ROWS] = (logits / temperature).softmax(-1).to(dtype)
    return targets
