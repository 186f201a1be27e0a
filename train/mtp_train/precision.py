"""The number type that a training step multiplies in: bfloat16 where that is faster, else float32.

Processors without bfloat16 instructions convert to float32 and back, which takes several times as
long as float32 alone. Which ones have them, PyTorch tells for some; a product tells for all.
"""

# mypy: disallow-untyped-decorators=False
from __future__ import annotations

import time
from functools import cache

import torch

# About a batch's rows by the built-in target's FFN.
_PRODUCT = (2048, 576, 1536)


@cache
def product_type(device: torch.device) -> torch.dtype:
    """torch.bfloat16 or torch.float32; tried once per device, in some tens of milliseconds."""
    if device.type != "cpu":
        return torch.bfloat16
    return min((torch.float32, torch.bfloat16), key=_seconds)


def autocast(device: torch.device) -> torch.autocast:
    """A context in which products are taken in `product_type(device)`."""
    dtype = product_type(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def _seconds(dtype: torch.dtype) -> float:
    n_rows, n_in, n_out = _PRODUCT
    rows, matrix = torch.ones(n_rows, n_in, dtype=dtype), torch.ones(n_out, n_in, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        rows @ matrix.T
        best = min(best, time.perf_counter() - started)
    return best
