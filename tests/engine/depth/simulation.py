"""The real loop under simulated time: a recorded answer, and a clock that only costs move.

The target says what the recorded answer said, the heads draft what they drafted then, and each
takes the time that a cost table gives it. Nothing here sleeps or measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtp_cli.bench.bound import clairvoyant_s
from mtp_cli.bench.trace import Trace
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.depth.policy import DepthPolicy
from mtp_cli.engine.drafters.base import Draft, always
from mtp_cli.engine.drafters.mtp import N_WAITING
from mtp_cli.engine.drafters.ngram import NgramDrafter
from mtp_cli.engine.generate import Generation
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.types import MAX_COPIED, Floats, OnRead, Rows

N_CTX = 1 << 20
Load = Callable[[float], float]


def no_load(now: float) -> float:
    return 1.0


@dataclass
class Machine:
    """What things cost here, and a clock.

    load:       how many times slower everything is at a given second
    is_mixture: whether rows of the same id, which choose the same experts, cost as one
    idle_s:     what everything would have taken without load
    drafted_at: when the heads were asked
    verified:   how many rows each decode had
    """

    table: CostTable
    load: Load = no_load
    is_mixture: bool = False
    now: float = 0.0
    idle_s: float = 0.0
    drafted_at: list[float] = field(default_factory=list)
    verified: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds * self.load(self.now)
        self.idle_s += seconds


@dataclass
class RecordedTarget:
    """Says the recorded answer; after a token that is not in it, nonsense."""

    machine: Machine
    text: list[int]
    n_ctx: int = N_CTX
    ids: list[int] = field(default_factory=list)
    n_last_rows: int = 1

    def prefill(
        self,
        tokens: Sequence[int],
        n_hidden: int,
        is_stopped: Callable[[], bool],
        on_read: OnRead = None,
    ) -> Rows:
        self.ids.extend(tokens)
        self.n_last_rows = 1
        return self._rows(1)

    def decode(self, tokens: Sequence[int]) -> Rows:
        table, n = self.machine.table, len(tokens)
        switch_s = (n != self.n_last_rows) * table.switch_s
        self.n_last_rows = n
        n_paid = len({*tokens}) if self.machine.is_mixture else n
        rows_s = table.target_s[n_paid - 1] + len(self.ids) * table.growth_s[n_paid - 1]
        self.machine.spend(rows_s + switch_s)
        self.machine.verified.append(n)
        self.ids.extend(tokens)
        return self._rows(n)

    def _rows(self, n_rows: int) -> Rows:
        """Each row's logits are just the id it stands for; the hidden rows are empty."""
        end = len(self.ids) + 1
        following = self.text[end - n_rows : end]
        following += [-1] * (n_rows - len(following))
        return Rows(np.array(following, np.float32)[:, None], np.empty((n_rows, 0), np.float32))

    def truncate(self, n_past: int) -> int:
        del self.ids[n_past:]
        return len(self.ids)


class TheRow(Sampler):
    """Chooses what the recorded answer says."""

    def __init__(self) -> None:
        super().__init__(Sampling(temperature=0))

    def choose(self, logits: Floats, before: Sequence[int] = ()) -> int:
        return int(logits[0])


class RecordedHeads:
    """Drafts what the heads drafted at this place of the recorded answer.

    n_unread: rows of the prompt that they have to read before their first draft
    """

    n_window = 0

    def __init__(self, machine: Machine, trace: Trace, n_unread: int = 0) -> None:
        self.max_depth = max(len(draft.ids) for draft in trace.drafts)
        self._machine = machine
        self._trace = trace
        self._n_most = N_WAITING + n_unread
        self._n_shown, self._n_read = 0, -n_unread

    @property
    def n_waiting(self) -> int:
        return min(self._n_most, max(0, self._n_shown - self._n_read))

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        self._n_shown = position + len(ids) - len(self._trace.prompt)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        recorded = self._trace.drafts[self._n_shown]
        depth = min(depth, len(recorded.ids))
        draft = Draft(is_block=self._machine.table.step_s == 0)
        if depth == 0:
            return draft
        self._machine.drafted_at.append(self._machine.now)
        table = self._machine.table
        self._machine.spend(table.first_s + self.n_waiting * table.row_s)
        self._n_read = self._n_shown + 1
        self._take(draft)
        while len(draft.ids) < depth and keep_going(draft):
            self._machine.spend(table.step_s)
            self._take(draft)
        return draft

    def _take(self, draft: Draft) -> None:
        recorded, k = self._trace.drafts[self._n_shown], len(draft.ids)
        draft.ids.append(recorded.ids[k])
        draft.probs.append(recorded.probs[k])

    def truncate(self, n_past: int) -> None:
        pass

    def close(self) -> None:
        pass


def replay(
    trace: Trace,
    machine: Machine,
    policy: DepthPolicy,
    cost: CostModel | None = None,
    n_unread: int = 0,
) -> Generation:
    """Run the loop over a trace; its statistics are in simulated seconds.

    cost: what the answer is compared with plain decoding by
    n_unread: see `RecordedHeads`
    """
    generation = Generation(
        RecordedTarget(machine, trace.prompt + trace.tokens),
        RecordedHeads(machine, trace, n_unread),
        TheRow(),
        policy,
        trace.prompt,
        max_tokens=len(trace.tokens),
        is_end=lambda token: False,
        single_row_s=lambda n_past: None if cost is None else cost.verify_s(1, n_past),
        clock=machine.clock,
    )
    for _ in generation:
        pass
    assert generation.tokens == trace.tokens
    return generation


def plain_s(trace: Trace, table: CostTable) -> float:
    cost = CostModel(table)
    return sum(cost.verify_s(1, len(trace.prompt) + r) for r in range(len(trace.tokens) - 1))


def bound_s(trace: Trace, table: CostTable) -> float:
    return clairvoyant_s(trace, CostModel(table))


@dataclass(frozen=True)
class Recorded:
    """One answer of a trace file."""

    cls: str
    temperature: float
    trace: Trace


def load_traces(path: Path) -> list[Recorded]:
    return [
        Recorded(entry["cls"], entry["temperature"], _trace(entry))
        for entry in json.loads(path.read_text())
    ]


def _trace(entry: dict[str, Any]) -> Trace:
    ngram = NgramDrafter()
    ngram.observe(entry["prompt"])
    matches = []
    for token in entry["tokens"][:-1]:
        matches.append(ngram.match(token, MAX_COPIED))
        ngram.observe([token])
    drafts = [
        Draft(ids, probs)
        for ids, probs in zip(entry["draft_ids"], entry["draft_probs"], strict=True)
    ]
    return Trace(entry["prompt"], entry["tokens"], drafts, matches)
