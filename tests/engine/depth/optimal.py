"""The best that any policy can do which does not know the future, where that can be computed.

Made-up heads: every drafted id survives with a probability drawn from one distribution, each by
itself, and the heads say exactly which. Nothing repeats, switches and catching up cost nothing. A
round is then a problem of optimal stopping, and the best rate the price of time at which the best
round is worth nothing (Dinkelbach 1967).

    python -m tests.engine.depth.optimal    # ours beside it, and it beside the clairvoyant bound
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from mtp_cli.bench.bound import clairvoyant_s
from mtp_cli.bench.trace import Trace
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match
from mtp_cli.engine.types import MAX_DEPTH
from tests.engine.depth.machines import TABLES
from tests.engine.depth.simulation import Machine, replay

Floats = npt.NDArray[np.float64]

_N_REACHED, _N_SURPLUS = 41, 81  # points of the grid
_N_SURVIVALS = 32


@dataclasses.dataclass(frozen=True)
class Heads:
    """Survival of a drafted id, a beta distribution.

    right: its mean
    sure:  near 0 the heads nearly always know whether an id is right, the larger the less they do
    """

    right: float
    sure: float

    def draw(self, n: int, seed: int) -> Floats:
        a, b = self.right * self.sure, (1 - self.right) * self.sure
        drawn = np.random.default_rng(seed).beta(a, b, n)
        return drawn.clip(0.01, 0.99)

    def typical(self) -> Floats:
        """(_N_SURVIVALS,) of equal weight."""
        places = (np.arange(_N_SURVIVALS) + 0.5) / _N_SURVIVALS
        return np.quantile(self.draw(200_000, seed=0), places)

    def trace(self, n_tokens: int, seed: int) -> Trace:
        tokens = list(range(100, 100 + n_tokens))
        survival = self.draw(n_tokens * MAX_DEPTH, seed).reshape(n_tokens, MAX_DEPTH)
        stands = np.random.default_rng([seed, 1]).random(survival.shape) < survival
        drafts = []
        for start in range(n_tokens - 1):
            ids = tokens[start + 1 : start + 1 + MAX_DEPTH]
            n_right = int(np.logical_and.accumulate(stands[start][: len(ids)]).sum())
            ids[n_right:] = [-1] * (len(ids) - n_right)
            drafts.append(Draft(ids, survival[start][: len(ids)].tolist()))
        return Trace(list(range(20)), tokens, drafts, [Match()] * (n_tokens - 1))


def without_switches(table: CostTable) -> CostTable:
    """A table under which a round's cost is its own."""
    flat = (0.0,) * len(table.growth_s)
    return dataclasses.replace(table, switch_s=0.0, row_s=0.0, growth_s=flat)


def best_rate(table: CostTable, survivals: Floats) -> float:
    """Tokens per second; survivals: (n,) equally likely, which the heads tell once they drafted."""
    low, high = 0.0, (1 + MAX_DEPTH) / table.target_s[0]
    while high - low > 1e-4 * high:
        price = (low + high) / 2
        low, high = (price, high) if _worth(table, survivals, price) > 0 else (low, price)
    return low


def _worth(table: CostTable, survivals: Floats, price: float) -> float:
    """What the best round is worth: expected tokens less the price of its time.

    After k drafted ids only two things matter: the probability that all of them stand, and by how
    much verifying the best part of them is worth more than the tokens that verifying all would
    bring (a surplus of 0 or less, since rows cost time).
    """
    rows = price * np.array(table.target_s)
    reached = np.linspace(0, 1, _N_REACHED)
    surplus = np.linspace(-rows[MAX_DEPTH] - 1, 0, _N_SURPLUS)
    worth = np.tile(surplus, (_N_REACHED, 1))  # after all of MAX_DEPTH: verify
    for k in range(MAX_DEPTH - 1, 0, -1):
        gained = reached[:, None, None] * survivals
        then = np.maximum(surplus[:, None] - gained, -rows[k + 1])
        further = gained + _interpolated(worth, np.broadcast_to(gained, then.shape), then, surplus)
        worth = np.maximum(surplus, further.mean(axis=2) - price * table.step_s)
    then = np.maximum(-rows[0] - survivals, -rows[1])
    drafting = 1 + survivals + _interpolated(worth, survivals, then, surplus)
    return float(max(1 - rows[0], drafting.mean() - price * table.first_s))


def _interpolated(worth: Floats, reached: Floats, surplus: Floats, grid: Floats) -> Floats:
    x = (reached * (_N_REACHED - 1)).clip(0, _N_REACHED - 1 - 1e-9)
    y = ((surplus - grid[0]) / (grid[1] - grid[0])).clip(0, _N_SURPLUS - 1 - 1e-9)
    i, j = x.astype(int), y.astype(int)
    x, y = x - i, y - j
    low = worth[i, j] * (1 - y) + worth[i, j + 1] * y
    high = worth[i + 1, j] * (1 - y) + worth[i + 1, j + 1] * y
    between: Floats = low * (1 - x) + high * x
    return between


@dataclasses.dataclass(frozen=True)
class Rates:
    """Tokens per second."""

    plain: float
    ours: float
    best: float
    clairvoyant: float


def rates(table: CostTable, heads: Heads, n_tokens: int = 3000) -> Rates:
    """Of one long text; the policy has had a shorter one to get to know the heads."""
    table = without_switches(table)
    policy = ExpectedValue(CostModel(table))
    replay(heads.trace(400, seed=1), Machine(table), policy)
    trace = heads.trace(n_tokens, seed=2)
    n_made = n_tokens - 1
    return Rates(
        plain=1 / table.target_s[0],
        ours=n_made / replay(trace, Machine(table), policy).stats.decode_s,
        best=best_rate(table, heads.typical()),
        clairvoyant=n_made / clairvoyant_s(trace, CostModel(table)),
    )


def main() -> None:
    print("right  sure  table           best/plain  ours/best  best/clairvoyant  ours/clairvoyant")
    for sure in (0.7, 1.5):
        for right in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
            for name in (name for name in TABLES if name.startswith("few rows")):
                r = rates(TABLES[name], Heads(right, sure))
                print(
                    f"{right:5}  {sure:4}  {name:14}  {r.best / r.plain:10.3f}"
                    f"  {r.ours / r.best:9.3f}  {r.best / r.clairvoyant:16.3f}"
                    f"  {r.ours / r.clairvoyant:16.3f}"
                )


if __name__ == "__main__":
    main()
