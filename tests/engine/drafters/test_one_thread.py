"""numpy's pool of threads takes no part in a head's products, and is as it was afterwards."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from mtp_cli.engine.drafters.one_thread import multiplied
from mtp_cli.engine.types import Floats

BLAS = ThreadpoolController().select(user_api="blas")


def pool() -> list[int]:
    return [library["num_threads"] for library in BLAS.info()]


class Watched:
    """Rows that keep how many threads there were to multiply them."""

    def __init__(self, rows: Floats) -> None:
        self.seen: list[int] = []
        self._rows = rows

    def __matmul__(self, other: Floats) -> Floats:
        self.seen = pool()
        found: Floats = self._rows @ other
        return found


@pytest.mark.parametrize("n_rows", [1, 256])
def test_one_thread_multiplies(n_rows: int) -> None:
    rng = np.random.default_rng(1)
    rows, weights = rng.random((n_rows, 1728), np.float32), rng.random((576, 1728), np.float32)
    wanted, before = rows @ weights.T, pool()
    watched = Watched(rows)
    found = multiplied(cast(Floats, watched), weights)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert watched.seen == [1] * len(before)
    assert pool() == before
    np.testing.assert_allclose(multiplied(rows[0], weights), wanted[0], rtol=1e-5)
