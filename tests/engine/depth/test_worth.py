"""How many rows that have to be read are read at once."""

from __future__ import annotations

import math

import pytest

from mtp_cli.engine.depth.worth import first_part


@pytest.mark.parametrize(
    ("costs", "n_rows", "first"),
    [
        ([1.0], 1, 1),
        ([1.0, 1.1, 1.2, 1.3], 4, 4),
        ([1.0, 1.1, 1.2, 1.3], 3, 3),
        ([1.0, 2.0, 3.0], 3, 3),  # no part is cheaper than the whole
        ([1.0, 1.1, 1.2, 5.0, 5.1, 5.2], 6, 3),  # a step that is dearer than two rounds
        ([1.0, 1.1, 1.2, 5.0, 5.1], 5, 3),
        ([1.0, math.inf, 1.2, math.inf], 4, 3),  # counts that may not be read
        ([1.0, math.inf, math.inf], 2, 1),
    ],
)
def test_all_rows_at_once_unless_parts_are_cheaper(
    costs: list[float], n_rows: int, first: int
) -> None:
    assert first_part(costs, n_rows) == first
