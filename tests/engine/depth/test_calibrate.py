"""The first measurement: a simulated machine's costs are found again, and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine.depth import calibrate
from mtp_cli.engine.depth.cost import CostTable, interpolated
from mtp_cli.engine.depth.remembered import code_digest
from mtp_cli.engine.drafters.base import Draft, NoDrafter, always
from mtp_cli.engine.native import compiled
from mtp_cli.engine.sampling.proposals import Propose, likeliest
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import Floats, OnRead, Rows
from tests.engine.depth.machines import N_MAX, TABLES

TABLE = TABLES["Q8_0"]


@dataclass
class Bench:
    """A target that takes its time from a table, and the clock it moves.

    can_drop: False for a memory that loses everything when a suffix is dropped
    load:     how many times slower everything is at a given second
    """

    table: CostTable = TABLE
    can_drop: bool = True
    n_ctx: int = 4096
    load: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0
    ids: list[int] = field(default_factory=list)
    n_last_rows: int = 1

    def clock(self) -> float:
        return self.now

    def prefill(
        self,
        tokens: Sequence[int],
        n_hidden: int,
        is_stopped: Callable[[], bool],
        on_read: OnRead = None,
    ) -> Rows:
        self.ids.extend(tokens)
        return self._rows(1)

    def decode(self, tokens: Sequence[int]) -> Rows:
        n = len(tokens)
        seconds = self.table.target_s[n - 1] + len(self.ids) * self.table.growth_s[n - 1]
        seconds += (n != self.n_last_rows) * self.table.switch_s
        self.now += seconds * self.load(self.now)
        self.n_last_rows = n
        self.ids.extend(tokens)
        return self._rows(n)

    def _rows(self, n: int) -> Rows:
        ends = np.arange(len(self.ids) - n, len(self.ids), dtype=np.float32)
        return Rows(np.stack([ends, ends**2], axis=1), np.zeros((n, 4), np.float32))

    def truncate(self, n_past: int) -> int:
        del self.ids[n_past if self.can_drop or n_past >= len(self.ids) else 0 :]
        return len(self.ids)


@dataclass
class Mixture(Bench):
    """Rows cost what the experts cost that they choose; ids that lie together choose the same."""

    n_vocab: int = 32_000

    def decode(self, tokens: Sequence[int]) -> Rows:
        n = len(tokens)
        n_chosen = len({token // 100 for token in tokens})
        self.now += self.table.target_s[n_chosen - 1]
        self.ids.extend(tokens)
        return self._rows(n)

    def _rows(self, n: int) -> Rows:
        return Rows(np.zeros((n, self.n_vocab), np.float32), np.zeros((n, 4), np.float32))


@dataclass
class Heads:
    """Heads on the same clock."""

    bench: Bench
    max_depth: int = 8
    n_window: int = 0
    n_waiting: int = 0

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        self.n_waiting += len(ids)

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        table = self.bench.table
        self.bench.now += table.first_s + self.n_waiting * table.row_s + (depth - 1) * table.step_s
        self.n_waiting = 0
        return Draft([0] * depth, [0.5] * depth)

    def truncate(self, n_past: int) -> None:
        self.n_waiting = 0

    def close(self) -> None:
        pass


@dataclass
class HeadsOfTheirOwn(Heads):
    """A head for each id, which reads what it missed when its turn comes."""

    n_shown: int = 0
    n_read: list[int] = field(default_factory=lambda: [0] * 3)
    max_depth: int = 3

    def observe(self, ids: Sequence[int], position: int, hidden: Floats | None) -> None:
        self.n_shown += len(ids)
        self.n_waiting = self.n_shown - self.n_read[0] - 1

    def draft(
        self,
        newest: int,
        depth: int,
        keep_going: Callable[[Draft], bool] = always,
        propose: Propose = likeliest,
    ) -> Draft:
        table, draft = self.bench.table, Draft()
        for k in range(depth):
            n_missed = self.n_shown - self.n_read[k] - 1
            draft.n_behind += n_missed if k else 0
            self.bench.now += (table.step_s if k else table.first_s) + n_missed * table.row_s
            self.n_read[k] = self.n_shown
            draft.ids.append(0)
        return draft


def calibrated(bench: Bench, heads: Heads | None = None) -> CostTable:
    return calibrate.calibrate(bench, heads or Heads(bench), N_MAX, bench.clock)


def test_rows_choose_different_experts_as_a_texts_do() -> None:
    found = calibrated(Mixture())
    for n in TUNING.calibration.counts:
        assert found.target_s[n - 1] == pytest.approx(TABLE.target_s[n - 1])


def cached(bench: Bench, *facts: object) -> CostTable:
    return calibrate.cost_table(facts, bench, Heads(bench), N_MAX, bench.clock)


@pytest.mark.parametrize("can_drop", [True, False])
def test_finds_the_machine_again(can_drop: bool) -> None:
    bench = Bench(can_drop=can_drop)
    found = calibrated(bench)
    short = TUNING.calibration.n_short
    expected = [t + short * g for t, g in zip(TABLE.target_s, TABLE.growth_s, strict=True)]
    assert found.target_s[:9] == pytest.approx(expected[:9])
    assert found.target_s == pytest.approx(expected, rel=0.02)  # some lie between measured ones
    assert found.growth_s == pytest.approx(TABLE.growth_s)
    assert found.switch_s == pytest.approx(TABLE.switch_s)
    assert found.first_s == pytest.approx(TABLE.first_s)
    assert found.row_s == pytest.approx(TABLE.row_s)
    assert found.step_s == pytest.approx(TABLE.step_s)
    assert bench.ids == []


@pytest.mark.parametrize("name", ["few rows Q4_1", "Q8_0"])
def test_what_decides_is_found_while_the_machine_changes_its_speed(name: str) -> None:
    """By a third from one second to the next, and by a tenth from decode to decode."""
    table = TABLES[name]
    for seed in range(5):
        rng = np.random.default_rng(seed)

        def load(now: float, rng: np.random.Generator = rng) -> float:
            return float(1.15 + 0.15 * np.sin(5 * now) + abs(rng.normal(0, 0.1)))

        found = calibrated(Bench(table, load=load))
        for n in (2, 3, 4):
            ratio = table.target_s[n - 1] / table.target_s[0]
            assert found.target_s[n - 1] / found.target_s[0] == pytest.approx(ratio, rel=0.12)


def test_what_each_head_missed_is_no_part_of_a_step() -> None:
    bench = Bench()
    found = calibrated(bench, HeadsOfTheirOwn(bench))
    assert found.first_s == pytest.approx(TABLE.first_s)
    assert found.row_s == pytest.approx(TABLE.row_s)
    assert found.step_s == pytest.approx(TABLE.step_s)


def test_row_counts_between_measured_ones_climb_the_same_staircase() -> None:
    stairs = [1.0 + 2.0 * ((n - 1) // 4) + 0.1 * (n - 1) for n in range(1, 17)]
    counts = (*range(1, 10), 12, 16)
    found = interpolated(counts, [stairs[n - 1] for n in counts], 16)
    assert found == pytest.approx(stairs)
    assert interpolated(range(1, 6), stairs[:5], 5) == pytest.approx(stairs[:5])


def test_no_count_between_costs_more_than_the_next_or_less_than_the_last() -> None:
    counts = (*range(1, 10), 12, 16)
    noisy = [1.0, 1.3, 1.2, 1.4, 1.1, 1.5, 1.6, 1.3, 1.2, 1.6, 1.9]
    found = interpolated(counts, noisy, 16)
    assert list(found) == sorted(found)
    assert found[15] == 1.9


def test_a_disturbed_row_count_is_no_dearer_than_the_next() -> None:
    """Two and three rows of Q8_0 as measured once while another program ran."""
    found = interpolated((1, 2, 3, 4, 5), [8.8, 28.3, 29.4, 20.7, 29.1], 5)
    assert found == (8.8, 20.7, 20.7, 20.7, 29.1)


def test_a_count_that_is_measured_once_makes_none_cheap_that_is_measured_often() -> None:
    """Six rows came out at 1.21 once, and three to five with them."""
    counts = (*range(1, 10), 12, 16)
    found = interpolated(counts, [1.0, 1.08, 1.3, 1.35, 1.6, 1.21, 1.9, 2.2, 2.3, 3.0, 3.8], 16)
    assert found[:9] == (1.0, 1.08, 1.3, 1.35, 1.6, 1.6, 1.9, 2.2, 2.3)


def test_without_heads_there_is_no_draft_to_pay() -> None:
    bench = Bench()
    found = calibrate.calibrate(bench, NoDrafter(), N_MAX, bench.clock)
    assert found.step_s == found.first_s == float("inf")


def test_takes_about_a_second_on_a_small_model_and_three_passes_on_a_large_one() -> None:
    small, large = Bench(), Bench(TABLES["wide BF16"])
    calibrated(small)
    assert small.now < 2.0
    calibrated(large)
    assert large.now < 8 * sum(large.table.target_s)


def test_a_short_context_is_enough() -> None:
    bench = Bench(n_ctx=calibrate.N_CTX_MIN)
    assert calibrated(bench).growth_s == (0.0,) * N_MAX


def test_is_measured_once_for_the_same_files_and_again_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bench = Bench()
    first = cached(bench, "model", 2)
    unused = Bench(TABLES["BF16"])
    assert cached(unused, "model", 2) == first
    assert unused.now == 0.0
    cached(unused, "model", 4)
    assert unused.now > 0.0


def test_what_a_short_context_could_not_show_is_measured_in_a_longer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached(Bench(n_ctx=calibrate.N_CTX_MIN), "model").growth_s == (0.0,) * N_MAX
    assert cached(Bench(), "model").growth_s == pytest.approx(TABLE.growth_s)


def test_is_measured_again_when_other_code_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bench = Bench()
    cached(bench, "model")
    before = bench.now
    monkeypatch.setattr(compiled, "digest", lambda: "other sources")
    code_digest.cache_clear()
    request.addfinalizer(code_digest.cache_clear)
    cached(bench, "model")
    assert bench.now > before


@pytest.mark.parametrize("text", ["", "[]", "{}", "no json", "[" * 200_000])
@pytest.mark.slow
def test_a_damaged_cache_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bench = Bench()
    cached(bench, "model")
    (file,) = tmp_path.rglob("costs.json")
    file.write_text(text or file.read_text()[:-20])
    before = bench.now
    cached(bench, "model")
    assert bench.now > before


NAN, INF = float("nan"), float("inf")
ROWS = [0.01] * N_MAX


@pytest.mark.parametrize(
    "fields",
    [
        {"target_s": 5},
        {"target_s": "slow"},
        {"target_s": [0.01, "slow"]},
        {"target_s": [0.01, True] * (N_MAX // 2)},
        {"target_s": [0.0] * N_MAX},
        {"target_s": [-0.01, *ROWS[1:]]},
        {"target_s": [INF, *ROWS[1:]]},
        {"target_s": [NAN, *ROWS[1:]]},
        {"target_s": [10**400, *ROWS[1:]]},
        {"target_s": [], "growth_s": []},
        {"growth_s": ROWS[1:]},
        {"growth_s": [-0.01, *ROWS[1:]]},
        {"growth_s": None},
        {"first_s": None},
        {"first_s": 0.0},
        {"step_s": -0.01},
        {"step_s": NAN},
        {"row_s": -0.01},
        {"row_s": INF},
        {"switch_s": -0.01},
        {"switch_s": NAN},
        {"depth": 1},
    ],
)
@pytest.mark.slow
def test_an_entry_that_is_no_table_is_measured_anew_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bench = Bench()
    cached(bench, "model")
    (file,) = tmp_path.rglob("costs.json")
    ((key, entry),) = json.loads(file.read_text()).items()
    file.write_text(json.dumps({key: {**entry, **fields}}))
    before = bench.now
    found = cached(bench, "model")
    assert bench.now > before
    after = bench.now
    assert cached(bench, "model") == found
    assert bench.now == after


@pytest.mark.parametrize("entry", ["null", "5", '"slow"', "[]", "{}", "[" * 600 + "]" * 600])
@pytest.mark.slow
def test_what_is_no_entry_is_measured_anew_and_swept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bench = Bench()
    cached(bench, "model")
    (file,) = tmp_path.rglob("costs.json")
    (key,) = json.loads(file.read_text())
    file.write_text(f'{{"{key}": {entry}, "another": {entry}}}')
    before = bench.now
    cached(bench, "model")
    assert bench.now > before
    assert set(json.loads(file.read_text())) == {key}
