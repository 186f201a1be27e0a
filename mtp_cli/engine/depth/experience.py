"""What an engine knows of its files on this machine, and who decides by it how far to draft.

Owns the cost model, the row counts seen to be exact, and a policy for each situation; takes up what
earlier processes left, and leaves its own. Knows target and drafter by their protocols alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.calibrate import N_CTX_MIN, TABLES, cost_table, table_facts
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.exactness import Exactness, remembered
from mtp_cli.engine.depth.learning import Learning
from mtp_cli.engine.depth.policy import DepthPolicy, FixedDepth
from mtp_cli.engine.drafters.base import Drafter
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import MAX_DEPTH, Depth, TargetLike


class Situation(NamedTuple):
    """What is accepted differs between these, and what may be tried: each learns by itself."""

    is_greedy: bool
    draws_drafts: bool
    penalises: bool
    is_exact: bool


class Experience:
    """Costs, exactness and policies of one timeline.

    facts:     what costs and bits depend on: files, backends, threads at most
    n_max:     rows that can be verified together
    n_threads: of a decode now; n_threads_most: on an idle machine, of which alone tables are kept
    """

    def __init__(
        self,
        facts: Sequence[object],
        target: TargetLike,
        drafter: Drafter,
        *,
        n_max: int,
        n_threads: Callable[[], int],
        n_threads_most: int,
    ) -> None:
        self._facts = tuple(facts)
        self._target, self._drafter = target, drafter
        self._n_max = n_max
        self._n_threads, self._n_threads_most = n_threads, n_threads_most
        self._costs: CostModel | None = None
        self._exact_costs: CostModel | None = None  # where some row counts may not be tried
        self._known_exact: Exactness | None = None
        self._learners: dict[bool, Learning] = {}
        self._automatic: dict[Situation, ExpectedValue] = {}
        self._patience = TUNING.cost.first_patience
        self._n_answers = 0  # with costs as they are

    def costs(self) -> CostModel:
        """What rounds cost here; measured now if it never was, or was wrong, which empties the
        timeline."""
        if self._is_refuted():
            self._forget()
        if self._costs is None:
            table = cost_table(self._facts, self._target, self._drafter, self._n_max)
            self._costs = self._model_of(table)
        return self._costs

    def _model_of(self, table: CostTable) -> CostModel:
        return CostModel(table, n_threads=self._n_threads)

    def single_row_s(self, n_past: int) -> float | None:
        """Seconds of a plain round after n_past tokens, as far as they are known."""
        costs = self._costs or self._exact_costs
        return None if costs is None else costs.verify_s(1, n_past)

    def exactness(self) -> Exactness:
        """What is known of row counts: of this process, else of earlier ones."""
        if self._known_exact is None:
            found = remembered(self._n_max).get(self._facts)
            self._known_exact = found or Exactness(self._n_max)
        return self._known_exact

    def policy(self, depth: Depth, situation: Situation) -> DepthPolicy:
        """Who decides in the answer that begins now; see `Engine.generate` for depths."""
        if depth == 0 or self._target.n_ctx < N_CTX_MIN:
            return FixedDepth(0)
        exactness = self.exactness() if situation.is_exact else None
        if depth != "auto":
            return FixedDepth(min(depth, MAX_DEPTH), exactness)
        self._forget_refuted()
        if self._costs is None:
            self._recall_costs()
        costs = self._costs or (self._exact_costs if situation.is_exact else None)
        if costs is None:
            return self._learning(situation, exactness)
        return self._decided(situation, costs, exactness)

    def _decided(
        self, situation: Situation, costs: CostModel, exactness: Exactness | None
    ) -> ExpectedValue:
        """The policy of what is known; it begins another answer."""
        if situation not in self._automatic:
            self._automatic[situation] = ExpectedValue(
                costs, exactness, n_drafted=self._drafter.max_depth
            )
        self._automatic[situation].open_answer()
        return self._automatic[situation]

    def _table_facts(self) -> tuple[object, ...]:
        return table_facts(self._facts, self._target, self._n_max)

    def _recall_costs(self) -> None:
        """Take up what was measured before, in this process or an earlier one."""
        table = TABLES.get(self._table_facts())
        if table is not None and len(table.target_s) == self._n_max:
            self._costs = self._model_of(table)

    def _forget_refuted(self) -> None:
        """Costs that turned out wrong are learned anew in the answer that begins, but not again and
        again where a machine is another one every minute."""
        self._n_answers += 1
        if self._n_answers > self._patience and self._is_refuted():
            self._forget()
            self._patience *= 2

    def _forget(self) -> None:
        TABLES.drop(self._table_facts())
        self._costs = self._exact_costs = None
        self._learners.clear()
        self._automatic.clear()
        self._n_answers = 0

    def _is_refuted(self) -> bool:
        """With fewer threads rows cost otherwise, whatever was measured with all of them."""
        if self._n_threads() != self._n_threads_most:
            return False
        known = (self._costs, self._exact_costs)
        return any(costs is not None and costs.is_refuted() for costs in known)

    def _learning(self, situation: Situation, exactness: Exactness | None) -> DepthPolicy:
        """What answers while costs are found out, as far as they were when the last one ended."""

        def on_known(table: CostTable, is_partial: bool) -> DepthPolicy:
            costs = self._model_of(table)
            if is_partial:
                self._exact_costs = costs
                return self._decided(situation, costs, exactness)
            self._costs = costs
            if self._n_threads() == self._n_threads_most:  # else it is of a busy machine
                TABLES.put(self._table_facts(), table)
            return self._decided(situation, costs, exactness)

        learning = self._learners.get(exactness is not None)
        if learning is None:
            learning = Learning(
                self._n_max,
                min(MAX_DEPTH, self._drafter.max_depth),
                exactness=exactness,
                n_threads=self._n_threads,
            )
            self._learners[exactness is not None] = learning
        learning.open_answer(on_known)
        return learning

    def keep(self) -> None:
        """Leave what was seen of row counts to later processes, and no costs that turned out wrong;
        others are left when they are known."""
        if self._is_refuted():
            TABLES.drop(self._table_facts())
        if self._known_exact is not None:
            remembered(self._n_max).put(self._facts, self._known_exact)
