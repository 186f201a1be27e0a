"""A product of floating-point numbers in the order in which ggml adds up, by its definition.

For processors that the tests do not run on: what ggml itself was built for here, ggml shows. A
product and its addition are rounded once. (Of two halves the product alone is exact in single
precision, so that it does not matter there.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gguf
import numpy as np

from mtp_cli.engine.types import Floats


@dataclass(frozen=True)
class Order:
    """ggml_vec_dot_f16, _bf16 or _f32 (vec.cpp): n_sums vectors of so many lanes by turns.

    total: (..., n_sums, lanes) to (...)
    """

    lanes: int
    n_sums: int
    total: Callable[[Floats], Floats]


def product(name: str, order: Order, weights: Floats, rows: Floats) -> Floats:
    """(n_rows, n_out) of weights (n_out, n_in) and rows (n_rows, n_in), rounded to the format."""
    kind = gguf.GGMLQuantizationType[name.upper()]
    w, x = (
        gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
        for values in (weights, rows)
    )
    x, w = (values.reshape(len(values), -1, order.n_sums, order.lanes) for values in (x, w))
    sums = np.zeros((len(x), len(w), order.n_sums, order.lanes), np.float32)
    for step in range(x.shape[1]):
        sums = _multiply_add(x[:, None, step], w[:, step], sums)
    return order.total(sums)


def _multiply_add(a: Floats, b: Floats, c: Floats) -> Floats:
    """a * b + c, rounded once.

    A product of two floats is exact in double precision. The sum is rounded to odd there, which
    leaves the rounding to single precision as it is (Boldo and Melquiond 2008).
    """
    products = a.astype(np.float64) * b
    sums = products + c
    back = sums - products
    error = (products - (sums - back)) + (c - back)  # exact (Knuth's two-sum)
    is_even = sums.view(np.int64) & 1 == 0
    odd = np.nextafter(sums, np.where(error > 0, np.inf, -np.inf))
    return np.where((error != 0) & is_even, odd, sums).astype(np.float32)


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


_AVX512_FOUR = Order(16, 4, lambda x: _folded(_of_four(x)))
_AVX2_FOUR = Order(8, 4, lambda x: _in_pairs(_of_four(x)))
_AVX2 = {
    "f16": _AVX2_FOUR,
    "f32": _AVX2_FOUR,
    "bf16": Order(8, 4, lambda x: _folded(_of_four(x))),
}
_AVX512 = {"f16": _AVX512_FOUR, "f32": _AVX512_FOUR, "bf16": Order(16, 2, _of_two)}
# By the builds of `compiled.BUILDS`
ORDERS: dict[str, dict[str, Order]] = {
    "v3": _AVX2,
    "v3_vnni": _AVX2,
    "v4": _AVX512,
    "v4_vnni": _AVX512,
}
