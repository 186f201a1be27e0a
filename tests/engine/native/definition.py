"""A product of half-precision numbers in the order in which ggml adds up, by its definition.

For processors that the tests do not run on: what ggml itself was built for here, ggml shows. In
single precision a product of two halves is exact, so that numpy's own additions have ggml's bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gguf
import numpy as np

from mtp_cli.engine.types import Floats


@dataclass(frozen=True)
class Order:
    """ggml_vec_dot_f16 or ggml_vec_dot_bf16 (vec.cpp): n_sums vectors of so many lanes by turns.

    total: (..., n_sums, lanes) to (...)
    """

    lanes: int
    n_sums: int
    total: Callable[[Floats], Floats]


def product(name: str, order: Order, weights: Floats, rows: Floats) -> Floats:
    """(n_rows, n_out) of weights (n_out, n_in) and rows (n_rows, n_in), both rounded to halves."""
    kind = gguf.GGMLQuantizationType[name.upper()]
    w, x = (
        gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
        for values in (weights, rows)
    )
    steps = (x[:, None, :] * w).reshape(len(x), len(w), -1, order.n_sums, order.lanes)
    sums = np.zeros_like(steps[:, :, 0])
    for step in range(steps.shape[2]):
        sums += steps[:, :, step]
    return order.total(sums)


def _folded(x: Floats) -> Floats:
    """Lanes, the upper half upon the lower one until one is left."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


def _of_four(x: Floats) -> Floats:
    return (x[..., 0, :] + x[..., 2, :]) + (x[..., 1, :] + x[..., 3, :])


def _in_pairs(x: Floats) -> Floats:
    """Eight lanes: the halves together, then neighbours."""
    four = x[..., :4] + x[..., 4:]
    return (four[..., 0] + four[..., 1]) + (four[..., 2] + four[..., 3])


def _of_two(x: Floats) -> Floats:
    both = _folded(x).astype(np.float64)
    return (both[..., 0] + both[..., 1]).astype(np.float32)


_AVX512 = {
    "f16": Order(16, 4, lambda x: _folded(_of_four(x))),
    "bf16": Order(16, 2, _of_two),
}
# By the processors that GCC compiles for
ORDERS: dict[str, dict[str, Order]] = {
    "haswell": {
        "f16": Order(8, 4, lambda x: _in_pairs(_of_four(x))),
        "bf16": Order(8, 4, lambda x: _folded(_of_four(x))),
    },
    "skylake-avx512": _AVX512,
    "cascadelake": _AVX512,
}
