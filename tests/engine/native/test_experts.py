"""Our products with experts' weights, one operator at a time: ggml's bits, whoever else is there.

In every format and layout of the kernels' table, as test_products.py has them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.types import MAX_COPIED, Floats
from tests.engine.native import definition
from tests.engine.native.operators import (
    Layout,
    Routed,
    Weights,
    block_length,
    expert_product,
    expert_product_work_bytes,
    held,
)
from tests.engine.native.test_products import FORMATS, in_every_layout, normal

pytestmark = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")

FEW = MAX_COPIED + 1  # tokens that ours take in every format
COUNTS = (*range(1, FEW + 1), 40, 90)  # 90: each expert has rows enough for a prompt's kernels
N_EXPERT, N_USED = 7, 3


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    yield
    our_kernels.enable()


@pytest.fixture
def processor(request: pytest.FixtureRequest) -> str | None:
    """What our code was compiled for, where that is another one than ggml's."""
    found: str | None = request.config.getoption("compiled_for", None)
    return found


def routed(n_tokens: int, n_rows: int, n_in: int, n_expert: int = N_EXPERT) -> Routed:
    """Every token chooses N_USED different experts; the first one is chosen by most."""
    rng = np.random.default_rng([n_tokens, n_rows, n_in])
    liking = rng.random((n_tokens, n_expert))
    liking[:, 0] += 0.5
    ids = np.argsort(-liking, axis=1)[:, :N_USED].astype(np.int32)
    return Routed(normal(n_tokens, n_rows, n_in), ids)


def alone(
    name: str, weights: Weights, values: Floats, routed: Routed, processor: str | None
) -> Floats:
    """(n_tokens, n_used, n_out): what each token is to have, whatever stands beside it."""
    order = definition.ORDERS.get(processor or "", {}).get(name)
    is_ours = weights.layout is Layout.OURS
    if order is None and not is_ours:
        our_kernels.enable(products=False)
        found = [expert_product(weights, routed.token(i)) for i in range(len(routed.ids))]
        our_kernels.enable()
        return np.concatenate(found)
    n_tokens, n_used = routed.ids.shape
    rows = np.broadcast_to(routed.rows, (n_tokens, n_used, routed.rows.shape[2]))
    flat = rows.reshape(-1, rows.shape[2])
    if order is None:
        chosen = [definition.lanes_product(name, matrix, flat) for matrix in values]
    else:
        chosen = [definition.product(name, order, matrix, flat) for matrix in values]
    by_expert = np.stack(chosen).reshape(len(values), n_tokens, n_used, -1)
    of_chosen: Floats = np.take_along_axis(by_expert, routed.ids[None, :, :, None], axis=0)[0]
    return of_chosen


def are_taken(weights: Weights, routed: Routed) -> bool:
    """Whether ours take the product: they ask for other memory than ggml's, or nobody else can."""
    if weights.layout is Layout.OURS:
        return True
    ours = expert_product_work_bytes(weights, routed)
    our_kernels.enable(products=False)
    ggmls = expert_product_work_bytes(weights, routed)
    our_kernels.enable()
    return ours != ggmls


@in_every_layout
@pytest.mark.parametrize("n_rows", [1, N_USED], ids=["shared", "each"])
def test_a_row_has_the_same_bits_in_any_company(
    name: str, layout: Layout, n_rows: int, processor: str | None
) -> None:
    values, everything = normal(N_EXPERT, 80, 512), routed(max(COUNTS), n_rows, 512)
    with held(name, values, layout) as weights:
        assert weights is not None
        expected = alone(name, weights, values, everything, processor)
        exact = np.einsum("tsk,tsnk->tsn", everything.rows, values[everything.ids])
        assert np.linalg.norm(expected - exact) < 0.5 * np.linalg.norm(expected)
        for n_tokens in COUNTS:
            now = everything.first(n_tokens)
            is_ours = are_taken(weights, now)
            assert is_ours or n_tokens > FEW, f"{n_tokens} tokens"
            for n_threads in (1, 2, 3) if is_ours else ():
                ours = expert_product(weights, now, n_threads=n_threads)
                assert np.array_equal(ours, expected[:n_tokens]), f"{n_tokens}, {n_threads}"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("n_out", [4, 5, 66, 523])
def test_weight_rows_that_no_group_divides(name: str, n_out: int, processor: str | None) -> None:
    """523 columns are more than are computed at a time."""
    n_in = 3 * max(64, block_length(name))
    values, now = normal(N_EXPERT, n_out, n_in), routed(7, 1, n_in)
    with held(name, values) as weights:
        assert weights is not None
        assert are_taken(weights, now)
        expected = alone(name, weights, values, now, processor)
        for n_threads in (1, 3):
            assert np.array_equal(expert_product(weights, now, n_threads=n_threads), expected)


def test_one_expert_that_all_choose_and_one_that_is_chosen_twice(processor: str | None) -> None:
    """With more rows than a panel holds, and the same expert in two places of a token."""
    values, n_tokens = normal(N_EXPERT, 24, 256), 37
    ids = np.tile(np.array([[4, 1, 1]], np.int32), (n_tokens, 1))
    ids[::5, 2] = 6
    now = Routed(normal(n_tokens, N_USED, 256), ids)
    with held("q4_1", values) as weights:
        assert weights is not None
        assert are_taken(weights, now)
        expected = alone("q4_1", weights, values, now, processor)
        for n_threads in (1, 2, 5):
            assert np.array_equal(expert_product(weights, now, n_threads=n_threads), expected)


@pytest.mark.parametrize("name", sorted({"q6_k", "q8_0"}.intersection(FORMATS)))
def test_more_rows_of_an_expert_than_are_added_up_at_a_time(
    name: str, processor: str | None
) -> None:
    values, n_tokens = normal(2, 24, 256), 530
    now = Routed(normal(n_tokens, 1, 256), np.zeros((n_tokens, 1), np.int32))
    with held(name, values) as weights:
        assert weights is not None
        if are_taken(weights, now):
            expected = alone(name, weights, values, now, processor)
            for n_threads in (1, 2):
                assert np.array_equal(expert_product(weights, now, n_threads=n_threads), expected)
