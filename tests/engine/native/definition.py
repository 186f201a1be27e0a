"""Products by their definitions: what is added up, and in which order.

Of floating-point numbers in ggml's order, for processors that the tests do not run on: what ggml
itself was built for here, ggml shows. A product and its addition are rounded once. (Of two halves
the product alone is exact in single precision, so that it does not matter there.)

Of integers in blocks of 32 in the order of weights that are laid out for our kernels, which is the
same on all processors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from mtp_cli.engine.types import Floats
from tests.engine.native.operators import quantized, rounded


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


_HALF, _BLOCK = np.float16, 32
_WEIGHTS: dict[
    str, tuple[list[Any], int]
] = {  # a block as in a file, and what is taken off its integers
    "q4_0": ([("d", _HALF), ("qs", np.uint8, 16)], 8),
    "q4_1": ([("d", _HALF), ("m", _HALF), ("qs", np.uint8, 16)], 0),
    "q5_0": ([("d", _HALF), ("qh", np.uint8, 4), ("qs", np.uint8, 16)], 16),
    "q5_1": ([("d", _HALF), ("m", _HALF), ("qh", np.uint8, 4), ("qs", np.uint8, 16)], 0),
    "q8_0": ([("d", _HALF), ("qs", np.int8, _BLOCK)], 0),
}
_ROWS: dict[str, list[Any]] = {
    "q8_0": [("d", _HALF), ("qs", np.int8, _BLOCK)],
    "q8_1": [("d", _HALF), ("s", _HALF), ("qs", np.int8, _BLOCK)],
}


def lanes_product(name: str, weights: Floats, rows: Floats) -> Floats:
    """(n_rows, n_out) of weights (n_out, n_in) and rows (n_rows, n_in), both rounded as ggml does.

    Block by block: the sum of 32 products, exact, times the product of the scales; likewise minima
    times the row's s. Both sums are added up in the end.
    """
    fields, offset = _WEIGHTS[name]
    w = quantized(name, weights).view(np.dtype(fields)).reshape(len(weights), -1)
    kind = "q8_1" if "m" in (w.dtype.names or ()) else "q8_0"
    x = rounded(kind, rows).view(np.dtype(_ROWS[kind]))
    numbers, bytes_ = _integers(w) - offset, x["qs"].astype(np.int32)
    sums = np.zeros((len(x), len(w)), np.float32)
    mins = np.zeros_like(sums)
    for block in range(x.shape[1]):
        exact = (bytes_[:, block] @ numbers[:, block].T).astype(np.float32)
        scale = x["d"][:, block, None].astype(np.float32) * w["d"][:, block].astype(np.float32)
        sums = _multiply_add(scale, exact, sums)
        if kind == "q8_1":
            s, m = x["s"][:, block, None], w["m"][None, :, block]
            mins = _multiply_add(m.astype(np.float32), s.astype(np.float32), mins)
    return sums + mins


def _integers(blocks: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """(..., 32): a byte each, or four bits in halves of bytes and a fifth one apart."""
    qs = blocks["qs"].astype(np.int32)
    if qs.shape[-1] == _BLOCK:
        return qs
    found = np.concatenate([qs & 15, qs >> 4], axis=-1)
    if "qh" in (blocks.dtype.names or ()):
        found |= np.unpackbits(blocks["qh"], axis=-1, bitorder="little").astype(np.int32) << 4
    return found


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
