"""Our attention, against a softmax in double precision and against itself.

ggml's own graph runs it on shapes of many models: grouped heads, keys wider than values, ALiBi,
soft caps, sinks, windows, contexts that end anywhere, caches in every format. What a quantized
cache holds is read by the `gguf` package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.models import built_in_model
from tests.engine import tiny
from tests.engine.native import operators
from tests.engine.native.operators import (
    FLOAT,
    INT,
    INT64,
    POINTER,
    computed,
    context,
    ggml,
    tensor,
)

pytestmark = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")

Doubles = npt.NDArray[np.float64]


CLOSE = 2e-5  # of values around 2, in single precision


@dataclass(frozen=True)
class Shape:
    n_cells: int
    n_heads: int = 9
    n_kv_heads: int = 3
    key: int = 64
    value: int = 64
    max_bias: float = 0.0
    softcap: float = 0.0
    sinks: bool = False
    window: int | None = None
    key_type: str = "f16"
    value_type: str = "f16"

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.key)


SHAPES = {
    "one block": Shape(32),
    "built in": Shape(256),
    "many groups": Shape(1536),
    "groups of every size": Shape(8300, n_heads=2, n_kv_heads=1),
    "ends inside a block": Shape(300),
    "fewer cells than a block": Shape(7),
    "one head": Shape(96, n_heads=1, n_kv_heads=1),
    "keys wider than values": Shape(200, n_heads=4, n_kv_heads=1, key=192, value=128),
    "odd widths": Shape(100, n_heads=2, n_kv_heads=2, key=80, value=48),
    "widths of no vector": Shape(100, n_heads=3, n_kv_heads=1, key=100, value=36),
    "as wide as any": Shape(96, n_heads=2, n_kv_heads=1, key=576, value=512),
    **{f"heads of {n}": Shape(70, key=n, value=n) for n in (96, 112, 120, 128, 160, 192, 256)},
    **{f"{n} heads a key": Shape(70, n_heads=n, n_kv_heads=1) for n in (2, 5, 7, 13, 16, 128)},
    "ALiBi": Shape(128, n_heads=6, n_kv_heads=6, max_bias=8.0),
    "soft cap": Shape(128, softcap=20.0),
    "sinks": Shape(130, sinks=True),
    "window": Shape(700, window=90),
    **{
        f"in {name}": Shape(300, n_heads=4, n_kv_heads=2, key_type=name, value_type=name)
        for name in ("q8_0", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")
    },
    "keys in Q8_0": Shape(130, key=128, value=128, key_type="q8_0"),
    "values in Q8_0": Shape(130, key=192, value=128, value_type="q8_0"),
    "window in Q8_0": Shape(700, window=90, key=96, value=96, key_type="q8_0", value_type="q8_0"),
}


def permuted(within: int, made: int) -> int:
    """The second and third dimensions change places."""
    permute = ggml("ggml_permute", POINTER, POINTER, POINTER, *[INT] * 4)
    return int(permute(within, made, 0, 2, 1, 3))


@dataclass(frozen=True)
class Cache:
    """Cells (n_cells, n_kv_heads, width), as a cache holds them and as what that stands for."""

    kind: str
    data: npt.NDArray[np.uint8]
    values: Floats

    @classmethod
    def of(cls, values: Floats, kind: str) -> Cache:
        rows = values.reshape(-1, values.shape[-1])
        data = operators.quantized(kind, rows).reshape(len(rows), -1)
        read = gguf.quants.dequantize(data, operators.type_of(kind))
        return cls(kind, data, read.astype(np.float32).reshape(values.shape))

    def tensor(self, within: int) -> int:
        """(width, n_cells, n_kv_heads)"""
        made = operators.stored(within, self.kind, self.data, self.values.shape)
        return permuted(within, made)


@dataclass(frozen=True)
class Inputs:
    """q: (n_rows, n_heads, key); mask: (n_rows, n_cells)"""

    q: Floats
    k: Cache
    v: Cache
    mask: npt.NDArray[np.float16]
    sinks: Floats | None

    def row(self, index: int) -> Inputs:
        one = slice(index, index + 1)
        return Inputs(self.q[one], self.k, self.v, self.mask[one], self.sinks)


def inputs(shape: Shape, n_rows: int, seed: int = 0) -> Inputs:
    """Rows at the end of the cells, each of which sees one more than the one before."""
    rng = np.random.default_rng((seed, shape.n_cells))

    def normal(*size: int) -> Floats:
        return (2 * rng.standard_normal(size)).astype(np.float32)

    at = shape.n_cells - n_rows + np.arange(n_rows)[:, None] - np.arange(shape.n_cells)[None, :]
    is_hidden = (at < 0) | (at >= (shape.window or shape.n_cells))
    seen = -np.abs(at) if shape.max_bias else np.zeros_like(at)
    return Inputs(
        normal(n_rows, shape.n_heads, shape.key),
        Cache.of(normal(shape.n_cells, shape.n_kv_heads, shape.key), shape.key_type),
        Cache.of(normal(shape.n_cells, shape.n_kv_heads, shape.value), shape.value_type),
        np.where(is_hidden, -np.inf, seen).astype(np.float16),
        normal(shape.n_heads) if shape.sinks else None,
    )


def attended(shape: Shape, given: Inputs, n_threads: int = 1) -> Floats:
    """(n_rows, n_heads, value): ggml's operator, with whichever kernel takes it."""
    attend = ggml("ggml_flash_attn_ext", POINTER, *[POINTER] * 5, FLOAT, FLOAT, FLOAT)
    with context() as within:
        q = permuted(within, tensor(within, given.q))
        k, v = given.k.tensor(within), given.v.tensor(within)
        mask = tensor(within, given.mask)
        out = attend(within, q, k, v, mask, shape.scale, shape.max_bias, shape.softcap)
        if given.sinks is not None:
            add_sinks = ggml("ggml_flash_attn_ext_add_sinks", None, POINTER, POINTER)
            add_sinks(out, tensor(within, given.sinks))
        size = (len(given.q), shape.n_heads, shape.value)
        return computed(within, out, size, n_threads)


def attended_apart(shape: Shape, given: list[Inputs], n_threads: int) -> Floats:
    """(n_sequences, n_rows, n_heads, value), each sequence with cells of its own."""
    attend = ggml("ggml_flash_attn_ext", POINTER, *[POINTER] * 5, FLOAT, FLOAT, FLOAT)
    reshape = ggml("ggml_reshape_4d", POINTER, POINTER, POINTER, *[INT64] * 4)
    n, n_rows = len(given), len(given[0].q)

    def cells(caches: list[Cache]) -> int:
        first = caches[0]
        data = np.concatenate([cache.data for cache in caches])
        n_cells, *rest = first.values.shape
        made = operators.stored(within, first.kind, data, (n * n_cells, *rest))
        return permuted(within, reshape(within, made, *rest[::-1], n_cells, n))

    with context() as within:
        queries = tensor(within, np.concatenate([one.q for one in given]))
        q = permuted(within, reshape(within, queries, shape.key, shape.n_heads, n_rows, n))
        k, v = cells([one.k for one in given]), cells([one.v for one in given])
        masks = tensor(within, np.stack([one.mask for one in given]))
        mask = reshape(within, masks, shape.n_cells, n_rows, 1, n)
        out = attend(within, q, k, v, mask, shape.scale, shape.max_bias, shape.softcap)
        return computed(within, out, (n, n_rows, shape.n_heads, shape.value), n_threads)


def expected(shape: Shape, given: Inputs) -> Doubles:
    """The definition, in double precision."""
    per_key = shape.n_heads // shape.n_kv_heads
    k, v = (np.repeat(x.values.astype(np.float64), per_key, 1) for x in (given.k, given.v))
    scores = shape.scale * np.einsum("rhd,chd->rhc", given.q.astype(np.float64), k)
    if shape.softcap:
        scores = shape.softcap * np.tanh(scores / shape.softcap)
    n = 2 ** int(math.log2(shape.n_heads))
    powers = [(h + 1) / n if h < n else (2 * (h - n) + 1) / n / 2 for h in range(shape.n_heads)]
    slopes = 2.0 ** (-shape.max_bias * np.array(powers)) if shape.max_bias else np.ones(len(powers))
    scores = scores + slopes[None, :, None] * given.mask.astype(np.float64)[:, None, :]
    if given.sinks is not None:
        sinks = np.broadcast_to(given.sinks[None, :, None], (*scores.shape[:2], 1))
        scores = np.concatenate([scores, sinks], axis=2)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    values: Doubles = np.einsum("rhc,chd->rhd", weights[..., : shape.n_cells], v)
    return values


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    yield
    our_kernels.enable()


@pytest.mark.parametrize("name", SHAPES)
def test_attention_is_the_softmax_of_its_definition(name: str) -> None:
    shape = SHAPES[name]
    given = inputs(shape, n_rows=min(5, shape.n_cells))
    exact = expected(shape, given)
    ours = attended(shape, given)
    our_kernels.enable(attention=False)
    ggmls = attended(shape, given)
    # ggml adds up in half precision, so that an error as small as this also shows who was at work.
    assert np.abs(ours - exact).max() < CLOSE < np.abs(ggmls - exact).max()


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.n_cells > 90])
def test_many_rows_are_what_each_is_alone(name: str) -> None:
    """A prompt's, which are taken otherwise than a draft's."""
    shape = SHAPES[name]
    given = inputs(shape, n_rows=90)
    together = attended(shape, given)
    assert np.abs(together - expected(shape, given)).max() < CLOSE
    for row in (0, 1, 15, 16, 63, 64, 89):
        assert np.array_equal(attended(shape, given.row(row))[0], together[row]), f"row {row}"
    for n_threads in (2, 3):
        assert np.array_equal(attended(shape, given, n_threads), together), f"{n_threads} threads"


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_has_the_same_bits_in_any_company_and_with_any_threads(name: str) -> None:
    shape = SHAPES[name]
    n_rows = min(11, shape.n_cells)
    given = inputs(shape, n_rows)
    together = attended(shape, given)
    for row in range(n_rows):
        assert np.array_equal(attended(shape, given.row(row))[0], together[row]), f"row {row}"
    for n_threads in (2, 3):
        assert np.array_equal(attended(shape, given, n_threads), together), f"{n_threads} threads"


@pytest.mark.parametrize("name", ["built in", "ends inside a block", "window", "in q8_0", "ALiBi"])
@pytest.mark.parametrize("n_rows", [1, 70])
def test_each_of_many_sequences_has_the_bits_that_it_has_alone(name: str, n_rows: int) -> None:
    """As in the writing of text for a head, a row of each a decode."""
    shape = SHAPES[name]
    given = [inputs(shape, n_rows, seed) for seed in range(5)]
    apart = np.stack([attended(shape, one) for one in given])
    for n_threads in (1, 2, 3):
        assert np.array_equal(attended_apart(shape, given, n_threads), apart)


def test_cells_that_nobody_sees_change_no_bit() -> None:
    """llama.cpp reads cells in steps of 256, so that how many are read is not what a row sees."""
    shape, longer = Shape(300), Shape(1024)
    given = inputs(shape, n_rows=3)
    n_more = longer.n_cells - shape.n_cells

    def padded(cache: Cache, with_: float) -> Cache:
        widths = [(0, n_more), (0, 0), (0, 0)]
        return Cache.of(np.pad(cache.values, widths, constant_values=with_), cache.kind)

    mask = np.pad(given.mask, [(0, 0), (0, n_more)], constant_values=-np.inf)
    more = Inputs(given.q, padded(given.k, 3), padded(given.v, 5), mask, sinks=None)
    assert np.array_equal(attended(shape, given), attended(longer, more))


def test_a_row_that_sees_nothing_is_zero() -> None:
    shape = Shape(64)
    given = inputs(shape, n_rows=2)
    given.mask[0] = -np.inf
    found = attended(shape, given)
    assert not found[0].any()
    assert np.abs(found[1] - expected(shape, given.row(1))[0]).max() < CLOSE


def test_the_weights_of_distant_scores_are_exact_zeros() -> None:
    """One score far above the others: its value alone, to the bit."""
    shape = Shape(70, n_heads=1, n_kv_heads=1)
    given = inputs(shape, n_rows=1)
    keys = np.zeros_like(given.k.values)
    given.q[:], keys[40] = 10, 10
    given = replace(given, k=Cache.of(keys, "f16"))
    assert np.array_equal(attended(shape, given)[0, 0], given.v.values[40, 0])


@pytest.mark.parametrize("n_past", [20, 250, 505, 600])
def test_a_models_rows_are_exact_in_long_contexts(n_past: int) -> None:
    """Across 256 and 512 cells, where llama.cpp reads more cells and ggml takes other ways."""
    model = Model(built_in_model())
    ids = tiny.random_ids(12, seed=9)
    logits = []
    for n_rows, n_threads in ((1, 1), (1, 2), (3, 2), (12, 1)):
        target = Target(model, n_ctx=1024, n_threads=n_threads, hidden=HiddenSource.NONE)
        target.prefill([7 * n % 61 + 1 for n in range(n_past)], 0, lambda: False)
        decodes = [target.decode(ids[i : i + n_rows]).logits.copy() for i in range(0, 12, n_rows)]
        logits.append(np.concatenate(decodes))
        target.close()
    model.close()
    assert all(np.array_equal(logits[0], other) for other in logits[1:])


def test_how_a_models_prompt_is_cut_changes_no_bit() -> None:
    """The answer is the same whether the prompt was cached, in part or not at all."""
    model = Model(built_in_model())
    prompt, rows = [7 * i % 4001 + 11 for i in range(290)], tiny.random_ids(3, seed=10)
    logits = []
    for cut in ([290], [1, 63, 64, 65, 97], [200, 90], [3] * 96 + [2]):
        target = Target(model, n_ctx=1024, n_threads=2, hidden=HiddenSource.NONE)
        ends = np.cumsum(cut).tolist()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            target.prefill(prompt[start:end], 0, lambda: False)
        logits.append(target.decode(rows).logits.copy())
        target.close()
    model.close()
    assert all(np.array_equal(logits[0], other) for other in logits[1:])
