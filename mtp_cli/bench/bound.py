"""The clairvoyant bound: how fast a policy would be that knew what will be accepted.

Owns the dynamic programme over a trace. Pure.
"""

from __future__ import annotations

from mtp_cli.bench.trace import Trace
from mtp_cli.engine.depth.cost import CostModel


def clairvoyant_s(trace: Trace, cost: CostModel) -> float:
    """The least seconds in which any choice of drafts, each round, gives this trace's answer.

    It never drafts or verifies what will be rejected, chooses between heads and copy by
    hindsight, and pays for no catch-up beyond the first row. Since a round that accepts more
    may leave the next at a worse place, or with another number of rows before it, the best way
    is found from the end backwards.
    """
    n_rounds = len(trace.tokens) - 1
    # least[start][n - 1]: from there to the end, when the round before decoded n rows
    least = [[0.0] * cost.n_max for _ in range(n_rounds + 1)]
    for start in range(n_rounds - 1, -1, -1):
        n_past = len(trace.prompt) + start
        n_left = min(n_rounds - start, cost.n_max) - 1
        n_drafted = min(trace.n_drafted_right(start), n_left)
        n_copied = min(trace.n_copied_right(start), n_left)
        ways = [cost.verify_s(1, n_past) + least[start + 1][0]]
        for n in range(1, max(n_drafted, n_copied) + 1):
            draft_s = 0.0 if n <= n_copied else cost.draft_s(0, n)
            ways.append(draft_s + cost.verify_s(1 + n, n_past) + least[start + 1 + n][n])
        least[start] = [min(ways) + cost.switch_s()] * cost.n_max
        for n, same_s in enumerate(ways):
            least[start][n] = min(same_s, least[start][n])
    return least[0][0]
