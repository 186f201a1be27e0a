"""The named transforms that families share: permutations, fusions, stacks, small arithmetic.

Each takes the sources of a rule and the dims of its layer and gives a lazy source. Knows nothing
of names or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mtp_cli.errors import MtpError
from mtp_convert.families.rules import Dims, Transform
from mtp_convert.tensors.sources import (
    Array,
    Beside,
    Columns,
    Concat,
    Groups,
    Index,
    Pick,
    Reshape,
    Source,
    TransposeSlabs,
    Whole,
    n_rows,
)  # fmt: skip


def elementwise(function: Callable[[Array], Array]) -> Transform:
    """A small tensor, changed value by value."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        return Whole(sources, function, sources[0].shape)

    return transform


plus_one = elementwise(lambda values: values + np.float32(1))
plain_exp = elementwise(np.exp)
minus_exp = elementwise(lambda values: -np.exp(values))


def shaped(*names: str) -> Transform:
    """A small tensor in another shape."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        shape = tuple(dims[name] for name in names)
        return Whole(sources, lambda values: np.reshape(values, shape), shape)

    return transform


def squeezed(sources: Sequence[Source], dims: Dims) -> Source:
    """A small tensor without its dimensions of size one (a convolution's kernel)."""
    shape = tuple(n for n in sources[0].shape if n > 1)
    return Whole(sources, np.squeeze, shape)


def fused_rows(sources: Sequence[Source], dims: Dims) -> Source:
    """Matrices with the same rows' length, one below the other (q, k, v -> qkv)."""
    widths = {source.shape[-1] for source in sources}
    if len(widths) > 1:
        raise MtpError(f"rows of {sorted(widths)} values cannot be fused")
    return Concat(sources, (sum(n_rows(source) for source in sources), widths.pop()))


def beside(sources: Sequence[Source], dims: Dims) -> Source:
    """Matrices with as many rows, one to the right of the other."""
    if len({n_rows(source) for source in sources}) > 1:
        raise MtpError(f"matrices of {[n_rows(source) for source in sources]} rows beside another")
    return Beside(sources)


def stacked(sources: Sequence[Source], dims: Dims) -> Source:
    """One matrix for each expert -> one tensor (n_experts, rows, cols)."""
    shapes = {source.shape for source in sources}
    if len(shapes) > 1:
        raise MtpError(f"experts of different shapes: {sorted(shapes)[:3]}")
    return Concat(sources, (len(sources), *shapes.pop()))


def picked(source: Source, index: Index) -> Source:
    """Rows of a matrix in the order of `index`."""
    if len(index) and int(index.max()) >= n_rows(source):
        raise MtpError(f"expected at least {int(index.max()) + 1} rows, found {source.shape}")
    return Pick(source, index, (len(index), source.shape[-1]))


def row_slice(begin: str, end: str) -> Transform:
    """Rows [begin, end), both sums of dims such as "k+k"."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        first, last = (_sum(text, dims) for text in (begin, end))
        if last > n_rows(sources[0]):
            raise MtpError(f"expected at least {last} rows, found {sources[0].shape}")
        return picked(sources[0], np.arange(first, last))

    return transform


def _sum(text: str, dims: Dims) -> int:
    return sum(dims[name] for name in text.split("+")) if text else 0


def interleaved(heads: str) -> Transform:
    """Rows of each head from Hugging Face's halves to llama's interleaved rotary pairs."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        source, n_heads = sources[0], dims[heads]
        n = source.shape[0]
        if n % (2 * n_heads):
            raise MtpError(f"{n} rows do not divide into {n_heads} heads of pairs")
        index = np.arange(n).reshape(n_heads, 2, n // n_heads // 2).transpose(0, 2, 1).ravel()
        if len(source.shape) == 1:
            return Whole([source], lambda values: values[index], source.shape)
        return picked(source, index)

    return transform


def expert_half(half: int) -> Transform:
    """The gate (0) or up (1) half of experts stored fused: (n, 2 * n_ff, n_embd)."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        source = sources[0]
        if len(source.shape) != 3 or source.shape[1] % 2:
            raise MtpError(f"expected (experts, 2 * width, embd), found {source.shape}")
        n_experts, n_both, n_cols = source.shape
        n_ff = n_both // 2
        return Groups(source, n_both, half * n_ff, (half + 1) * n_ff, (n_experts, n_ff, n_cols))

    return transform


def matrix(sources: Sequence[Source], dims: Dims) -> Source:
    """A vector as a matrix of one row, and the like: leading ones dropped."""
    shape = tuple(n for n in sources[0].shape[:-1] if n > 1)
    return Reshape(sources[0], (*shape, sources[0].shape[-1]))


def vector(sources: Sequence[Source], dims: Dims) -> Source:
    """A matrix with one row, or one column, as a vector."""
    return Whole(sources, np.ravel, (math.prod(sources[0].shape),))


def mla_key(sources: Sequence[Source], dims: Dims) -> Source:
    """kv_b's key part, per head and transposed: (n_head, kv_rank, nope)."""
    return TransposeSlabs(_mla_part(sources[0], dims, 0, dims["nope"]))


def mla_value(sources: Sequence[Source], dims: Dims) -> Source:
    """kv_b's value part, per head: (n_head, v_dim, kv_rank)."""
    return _mla_part(sources[0], dims, dims["nope"], dims["nope"] + dims["v_dim"])


def _mla_part(source: Source, dims: Dims, begin: int, end: int) -> Source:
    n_head, each = dims["n_head"], dims["nope"] + dims["v_dim"]
    if source.shape[0] != n_head * each:
        raise MtpError(f"expected {n_head * each} rows, found {source.shape[0]}")
    return Groups(source, each, begin, end, (n_head, end - begin, source.shape[-1]))


def tiled_order(n_found: int, dims: Dims, width: str, offset: int = 0) -> Index:
    """Indices that reorder heads from grouped (g0v0 g0v1 g1v0 ...) to tiled (g0v0 g1v0 ...).

    Hugging Face stores the value heads of a linear attention grouped by key head; ggml's
    broadcast wants key heads tiled. n_found: rows or columns that there are; those before `offset`
    stay. MtpError where the heads of `width` do not make up the others.
    """
    n_groups, n_each, n_wide = dims["k_heads"], dims["v_heads"] // dims["k_heads"], dims[width]
    # Before anything is allocated: the sizes are the configuration's, which may say anything.
    if offset + n_groups * n_each * n_wide != n_found:
        raise MtpError(
            f"expected {offset} and {n_groups} times {n_each} heads of {n_wide}, found {n_found}"
        )
    index = np.arange(offset, n_found).reshape(n_groups, n_each, n_wide)
    return np.concatenate([np.arange(offset), index.transpose(1, 0, 2).ravel()])


def tiled_rows(width: str, offset: str = "") -> Transform:
    """Value heads (of `width` rows each) tiled; the rows before `offset` stay."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        source = sources[0]
        index = tiled_order(source.shape[0], dims, width, _sum(offset, dims))
        if len(source.shape) == 2:
            return picked(source, index)
        shape = tuple(n for n in source.shape if n > 1)
        return Whole(sources, lambda values: np.squeeze(values)[index], shape)

    return transform


def tiled_columns(width: str) -> Transform:
    """The same on the columns: the projection out of the value heads."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        return Columns(sources[0], tiled_order(sources[0].shape[-1], dims, width))

    return transform


def then(first: Transform, second: Transform) -> Transform:
    """One transform after the other."""

    def transform(sources: Sequence[Source], dims: Dims) -> Source:
        return second([first(sources, dims)], dims)

    return transform
