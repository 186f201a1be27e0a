"""Our products, one operator at a time: a row's bits are the same in any company, in every format.

The formats are those of the kernels' table, in every layout of weights. The bits are ggml's own for
one row, but for weights that are laid out for our kernels: those are by definition
(`definition.py`). Where our code was compiled for another processor than ggml (`compiled_for.py`),
floating-point numbers are added up as ggml would there, by definition, too; in all other formats
ggml's bits are the same everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.types import MAX_COPIED, Floats
from tests.engine.native import definition
from tests.engine.native.operators import (
    Layout,
    Weights,
    block_length,
    ggml,
    held,
    product,
    product_work_bytes,
)

pytestmark = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")

FORMATS = our_kernels.formats()
BY_64 = {"f16", "f32", "bf16", "iq4_nl", "mxfp4"}  # whose kernels take 64 weights at a time
FEW = MAX_COPIED + 1  # rows that ours take in every format; of more they leave some to ggml
COUNTS = (*range(1, FEW + 1), 17, 40)


def layouts() -> list[tuple[str, Layout]]:
    """Every format as it is in a file, and as models are loaded in it otherwise."""
    found = []
    for name, layout in itertools.product(FORMATS, Layout):
        with held(name, np.zeros((16, 256), np.float32), layout) as weights:
            found += [] if weights is None else [(name, layout)]
    return found


LAYOUTS = layouts()
in_every_layout = pytest.mark.parametrize(
    ("name", "layout"), LAYOUTS, ids=[f"{name}-{layout.name}" for name, layout in LAYOUTS]
)
LAID_OUT = [name for name, layout in LAYOUTS if layout is Layout.OURS]
Alone = Callable[[str, Weights, Floats, Floats], Floats]


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    yield
    our_kernels.enable()


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Alone:
    """(n_rows, n_out): what each row is to have, whatever stands beside it."""
    processor = request.config.getoption("compiled_for", None)

    def rows_alone(name: str, held_weights: Weights, weights: Floats, rows: Floats) -> Floats:
        if held_weights.layout is Layout.OURS:
            return definition.lanes_product(name, weights, rows)
        order = definition.ORDERS.get(processor, {}).get(name)
        if order is not None:
            return definition.product(name, order, weights, rows)
        our_kernels.enable(products=False)
        found = [product(held_weights, row[None]) for row in rows]
        our_kernels.enable()
        return np.concatenate(found)

    return rows_alone


def normal(*size: int) -> Floats:
    """Numbers of many magnitudes."""
    rng = np.random.default_rng(size)
    return (rng.standard_normal(size) * 2.0 ** rng.integers(-4, 4, size)).astype(np.float32)


def are_taken(weights: Weights, n_rows: int) -> bool:
    """Whether ours take the product: they ask for other memory than ggml's, or nobody else can."""
    if weights.layout is Layout.OURS:
        return True
    ours = product_work_bytes(weights, n_rows)
    our_kernels.enable(products=False)
    ggmls = product_work_bytes(weights, n_rows)
    our_kernels.enable()
    return ours != ggmls


@in_every_layout
def test_a_row_has_the_same_bits_in_any_company(name: str, layout: Layout, alone: Alone) -> None:
    values, rows = normal(272, 512), normal(max(COUNTS), 512)
    with held(name, values, layout) as weights:
        assert weights is not None
        expected = alone(name, weights, values, rows)
        assert np.abs(expected - rows @ values.T).max() < 0.5 * np.abs(expected).max()
        for n_rows in COUNTS:
            is_ours = are_taken(weights, n_rows)
            assert is_ours or n_rows > FEW, f"{n_rows} rows"
            for n_threads in (1, 2, 3) if is_ours else ():
                ours = product(weights, rows[:n_rows], n_threads=n_threads)
                assert np.array_equal(ours, expected[:n_rows]), f"{n_rows} rows, {n_threads}"


@in_every_layout
def test_rows_that_are_hard_to_round(name: str, layout: Layout, alone: Alone) -> None:
    """Blocks of zeros, of halves, of one magnitude, of numbers whose scale is infinite."""
    values, rows = normal(16, 512), normal(max(COUNTS), 512)
    rows[0, :256] = 0
    rows[1] = np.round(2 * rows[1]) / 2
    rows[2] = np.sign(rows[2])
    rows[3, 256:] *= 1e-40
    with held(name, values, layout) as weights:
        assert weights is not None
        expected = alone(name, weights, values, rows)
        for n_rows in (4, len(rows)):
            if are_taken(weights, n_rows):
                ours = product(weights, rows[:n_rows])
                assert np.array_equal(ours, expected[:n_rows]), f"{n_rows} rows"


@in_every_layout
def test_the_largest_numbers_overflow_nowhere(name: str, layout: Layout, alone: Alone) -> None:
    """Blocks in which all numbers have the largest magnitude, with signs that never cancel."""
    signs = np.sign(normal(8, 256))
    values, rows = np.concatenate([signs, -signs]), np.tile(signs, (2, 1))
    values[:, ::32] *= 1.001  # so that some are the largest
    with held(name, values, layout) as weights:
        assert weights is not None
        expected = alone(name, weights, values, rows)
        assert np.abs(expected).max() > 200
        assert np.array_equal(product(weights, rows), expected)


@in_every_layout
def test_long_rows_of_a_prompt(name: str, layout: Layout, alone: Alone) -> None:
    """Weights are multiplied in more than one pass, and rows by more than one round of tiles."""
    values, rows = normal(48, 3328), normal(131, 3328)
    with held(name, values, layout) as weights:
        assert weights is not None
        if are_taken(weights, len(rows)):
            expected = alone(name, weights, values, rows)
            for n_threads in (1, 2):
                assert np.array_equal(product(weights, rows, n_threads=n_threads), expected)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("n_out", [4, 5, 66, 259])
def test_weight_rows_that_no_group_divides(name: str, n_out: int, alone: Alone) -> None:
    """The last ones are taken together, some of them anew. Widths are odd multiples of blocks."""
    n_in = 3 * max(64, block_length(name))
    values, rows = normal(n_out, n_in), normal(7, n_in)
    with held(name, values) as weights:
        assert weights is not None
        assert are_taken(weights, len(rows))
        expected = alone(name, weights, values, rows)
        for n_threads in (1, 3):
            assert np.array_equal(product(weights, rows, n_threads=n_threads), expected)


@in_every_layout
def test_rows_of_several_matrices(name: str, layout: Layout, alone: Alone) -> None:
    """As recurrent models multiply them: a matrix of rows for each sequence."""
    values, rows = normal(32, 512), normal(3, 5, 512)
    with held(name, values, layout) as weights:
        assert weights is not None
        expected = alone(name, weights, values, rows.reshape(15, 512)).reshape(3, 5, 32)
        for n_threads in (1, 2):
            assert np.array_equal(product(weights, rows, n_threads=n_threads), expected)


@pytest.mark.parametrize("name", LAID_OUT)
@pytest.mark.parametrize("n_out", [30, 32, 264])
def test_what_makes_no_whole_groups_is_not_laid_out(name: str, n_out: int) -> None:
    lanes = 16 if our_kernels.install() == "AVX-512" else 8
    with held(name, np.zeros((n_out, 64), np.float32), Layout.OURS) as weights:
        assert (weights is None) == (n_out % lanes != 0)


@pytest.mark.parametrize("name", sorted(BY_64.intersection(FORMATS)))
def test_a_width_of_no_whole_blocks_is_left_to_ggml(name: str) -> None:
    values, rows = normal(8, 96), normal(2, 96)
    with held(name, values) as weights:
        assert weights is not None
        assert not are_taken(weights, len(rows))
        ours = product(weights, rows)
        our_kernels.enable(products=False)
        assert np.array_equal(ours, product(weights, rows))


def test_a_single_weight_row_keeps_its_bits_in_f32(alone: Alone) -> None:
    """As a shared expert's gate is, whoever takes it: ggml does row by row."""
    values, rows = normal(1, 128), normal(FEW, 128)
    with held("f32", values) as weights:
        assert weights is not None
        assert np.array_equal(product(weights, rows), alone("f32", weights, values, rows))


@pytest.mark.parametrize("name", ["f16", "f32", "bf16"])
def test_the_definition_is_ggmls(name: str) -> None:
    """Where ggml was compiled for a processor that it stands for."""
    has = {what: ggml(f"ggml_cpu_has_{what}", int)() for what in ("avx2", "avx512", "avx512_bf16")}
    if not has["avx2"] or (name == "bf16" and has["avx512_bf16"]):
        pytest.skip("ggml adds them up with other instructions here")
    order = definition.ORDERS["v4_vnni" if has["avx512"] else "v3"][name]
    values, rows = normal(6, 512), normal(5, 512)
    our_kernels.enable(products=False)
    with held(name, values) as weights:
        assert weights is not None
        ggmls = np.concatenate([product(weights, row[None]) for row in rows])
    assert np.array_equal(definition.product(name, order, values, rows), ggmls)
