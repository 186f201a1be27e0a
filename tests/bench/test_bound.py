"""The clairvoyant bound against trying everything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_cli.bench.bound import clairvoyant_s
from mtp_cli.bench.trace import Trace
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match

TABLE = CostTable(
    target_s=(1.0, 1.7, 1.9, 3.1),
    growth_s=(0.01, 0.02, 0.03, 0.04),
    first_s=0.3,
    row_s=0.1,
    step_s=0.2,
    switch_s=0.05,  # less than any further row: to verify one that is wrong never saves it
)
COST = CostModel(TABLE)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    tokens = draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    proposal = st.lists(st.integers(0, 2), max_size=4)
    drafts, matches = [], []
    for _ in tokens[1:]:
        ids = draw(proposal)
        drafts.append(Draft(ids, [0.5] * len(ids)))
        matches.append(Match(draw(proposal), 3))
    return Trace([0, 0], tokens, drafts, matches)


def by_trying(trace: Trace, start: int, n_last: int = 1) -> float:
    """The same, from the definition: every source and depth, right or wrong.

    n_last: rows of the round before
    """
    n_left = len(trace.tokens) - 1 - start
    if n_left == 0:
        return 0.0
    n_past = len(trace.prompt) + start
    ways = []
    for proposed, is_free in ((trace.drafts[start].ids, False), (trace.matches[start].ids, True)):
        for n in range(min(len(proposed), COST.n_max - 1, n_left - 1) + 1):
            came = trace.tokens[start + 1 : start + 1 + n]
            n_right = next((k for k in range(n) if proposed[k] != came[k]), n)
            draft_s = 0.0 if is_free or n == 0 else COST.draft_s(0, n)
            rest = by_trying(trace, start + 1 + n_right, 1 + n)
            switch_s = (1 + n != n_last) * COST.switch_s()
            ways.append(draft_s + COST.verify_s(1 + n, n_past) + switch_s + rest)
    return min(ways)


@settings(deadline=None)
@given(traces())
def test_equals_trying_everything(trace: Trace) -> None:
    assert clairvoyant_s(trace, COST) == pytest.approx(by_trying(trace, 0))


def test_perfect_copies_cost_their_rows_alone() -> None:
    tokens = [5, 6, 7, 8, 9]
    matches = [Match(tokens[i + 1 :], 9) for i in range(4)]
    trace = Trace([1], tokens, [Draft()] * 4, matches)
    decodes_s = COST.verify_s(1, 1) + COST.verify_s(3, 2)  # the other way round it is two switches
    assert clairvoyant_s(trace, COST) == pytest.approx(decodes_s + COST.switch_s())
