"""The automatic depth beside the best that any policy could do without knowing the future."""

from __future__ import annotations

import numpy as np
import pytest

from mtp_cli.engine.depth.cost import CostTable
from mtp_cli.engine.depth.policy import FixedDepth
from mtp_cli.engine.types import MAX_DEPTH
from tests.engine.depth.machines import TABLES
from tests.engine.depth.optimal import Heads, best_rate, rates, without_switches
from tests.engine.depth.simulation import Machine, replay

pytestmark = pytest.mark.slow

every_machine = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


@every_machine
@pytest.mark.parametrize("right", [0.1, 0.6, 0.95])
def test_where_heads_tell_nothing_the_best_is_the_best_fixed_depth(
    table: CostTable, right: float
) -> None:
    table = without_switches(table)
    fixed = [1 / table.target_s[0]]
    for depth in range(1, MAX_DEPTH + 1):
        n_tokens = 1 + sum(right**k for k in range(1, depth + 1))
        drafting_s = table.first_s + (depth - 1) * table.step_s
        fixed.append(n_tokens / (drafting_s + table.target_s[depth]))
    assert best_rate(table, np.array([right])) == pytest.approx(max(fixed), rel=4e-3)  # the grid


@every_machine
@pytest.mark.parametrize("right", [0.6, 0.8])
def test_no_policy_could_be_much_better(table: CostTable, right: float) -> None:
    heads = Heads(right, sure=0.7)
    found = rates(table, heads, n_tokens=1500)
    assert found.ours > 0.94 * found.best
    # What is called the best lies between what is possible and what only hindsight could do.
    table, trace = without_switches(table), heads.trace(1500, seed=2)
    for depth in (0, 1, 3):
        seconds = replay(trace, Machine(table), FixedDepth(depth)).stats.decode_s
        assert (len(trace.tokens) - 1) / seconds < 1.03 * found.best
    assert found.best < found.clairvoyant
