"""Ratios, medians and means, from records written by hand."""

from __future__ import annotations

import dataclasses
import io
import math
import random
from typing import Any, cast

import pytest
from rich.console import Console

from mtp_cli.bench import report
from mtp_cli.bench.measure import Plan, Prefill, Record, Result, shortened, take_turns
from mtp_cli.bench.prompts import CHAT_CLASSES, PROMPTS
from mtp_cli.bench.summary import (
    MOST_DEVIATION,
    Comparison,
    bounds_over_plain,
    forks,
    steadiness,
    summary,
)
from mtp_cli.bench.trace import Trace
from mtp_cli.engine import Depth
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.depth.cost import CostModel, CostTable
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.ngram import Match

COST = CostModel(CostTable((1.0, 1.0), (0.0, 0.0), 0.0, 0.0, 0.0))


def record(
    cls: str, depth: Depth, repetition: int, speed: float, ratio: float, temperature: float = 0.0
) -> Record:
    return Record(cls, temperature, depth, repetition, 100, 100 / speed, ratio, 50, [], [], False)


def result() -> Result:
    """Two classes, three repetitions, on a machine that is another for every answer and the plain
    one beside it."""
    records = []
    ratios: dict[str, dict[Depth, float]] = {
        "prose": {0: 1.0, 2: 0.5, "auto": 0.9},
        "copies": {0: 1.0, 2: 2.0, "auto": 3.2},
    }
    unequal = 1.25  # the timelines are not equally fast
    for repetition, machine in enumerate((1.0, 10.0, 0.1)):
        for cls, by_depth in ratios.items():
            for depth, ratio in by_depth.items():
                speed = 20 * machine * (1.0 if depth == 0 else 7 * ratio)
                records.append(record(cls, depth, repetition, speed, unequal * ratio))
    trace = Trace([1], [5, 6, 7], [Draft([6], [0.5]), Draft([0], [0.5])], [Match(), Match()])
    return Result(records, [], {(c, r): trace for c in ("prose", "copies") for r in range(3)})


def test_ratios_are_to_the_plain_answer_beside() -> None:
    found = Comparison(result().records)
    assert found.over_plain("copies", "auto").low == pytest.approx(3.2)
    assert found.over_plain("copies", "auto").high == pytest.approx(3.2)
    assert found.plain("copies").median == pytest.approx(20)


def test_plain_decoding_is_a_static_depth_too() -> None:
    found = Comparison(result().records)
    assert found.best_static("prose") == (0, 1.0)
    depth, ratio = found.best_static("copies")
    assert depth == 2
    assert ratio == pytest.approx(2.0)


def test_the_summary_has_every_class_their_mean_and_the_worst() -> None:
    found = summary(result(), COST)
    assert found["auto_over_plain"] == pytest.approx(
        {"prose": 0.9, "copies": 3.2, "geomean": (0.9 * 3.2) ** 0.5, "worst": 0.9}
    )
    over_static = found["auto_over_best_static"]
    assert isinstance(over_static, dict)
    assert over_static["copies"] == pytest.approx(1.6)
    assert set(found) >= {"plain_tokens_per_s", "auto_over_bound"}


def test_the_bound_is_over_plain_of_the_same_trace() -> None:
    bounds = bounds_over_plain(result(), COST)
    assert set(bounds.values()) == {
        2.0
    }  # two tokens in one round that costs as much as a plain one
    over_bound = summary(result(), COST)["auto_over_bound"]
    assert isinstance(over_bound, dict)
    assert over_bound["prose"] == pytest.approx(0.45)


def test_other_temperatures_stay_out_of_the_greedy_summary() -> None:
    mixed = result()
    mixed.records += [record("prose", depth, 0, 1.0, 1.0, 0.7) for depth in (0, "auto")]
    assert summary(mixed, COST) == summary(result(), COST)
    assert forks(mixed.records) == forks(result().records)


def test_forks_are_counted_for_each_depth() -> None:
    records = [
        dataclasses.replace(r, is_fork=r.depth == 2 and r.repetition == 1) for r in result().records
    ]
    assert forks(records) == {"0": (0, 6), "2": (2, 6), "auto": (0, 6)}


class Answer:
    """A generation of a few tokens a round; every round goes into a log."""

    def __init__(self, name: str, n_tokens: int, n_a_round: int, log: list[str]) -> None:
        self.tokens: list[int] = []
        self._name, self._n_tokens, self._n_a_round, self._log = name, n_tokens, n_a_round, log

    def __next__(self) -> tuple[int, ...]:
        if len(self.tokens) >= self._n_tokens:
            raise StopIteration
        self._log.append(self._name)
        found = (0,) * min(self._n_a_round, self._n_tokens - len(self.tokens))
        self.tokens += found
        return found


def test_answers_take_turns_token_by_token() -> None:
    log: list[str] = []
    plain, drafted = Answer("plain", 12, 1, log), Answer("drafted", 12, 4, log)
    take_turns([cast(Any, plain), cast(Any, drafted)], random.Random(3))
    assert (log.count("plain"), log.count("drafted")) == (12, 3)
    ahead = [4 * log[:n].count("drafted") - log[:n].count("plain") for n in range(len(log) + 1)]
    assert min(ahead) >= -1
    assert max(ahead) <= 4
    log.clear()
    short, long = Answer("short", 3, 1, log), Answer("long", 30, 1, log)
    take_turns([cast(Any, short), cast(Any, long)], random.Random(3))
    assert (len(short.tokens), len(long.tokens)) == (3, 30)
    assert log[:2] != log[2:4] or log[:2] != log[4:6], "the first is not always the same"


def test_a_plan_runs_every_prompt_and_counts_its_answers() -> None:
    plan = Plan(repetitions=4)
    prompts = list(plan.prompts())
    assert len(prompts) == 4 * len(PROMPTS)
    assert {cls for _, cls, _ in prompts[: len(PROMPTS)]} == set(PROMPTS)
    assert len(plan) == 4 * 11 * (3 * 10 + 1)
    first, again = (text for r, cls, text in prompts if cls == "chat" and r in (0, 3))
    assert first == again


def test_a_slow_model_gets_shorter_answers() -> None:
    plan = Plan(temperatures=(0.0,), depths=(0, "auto"), repetitions=1)
    assert len(plan) == 33
    assert shortened(plan, 1e9, 40).max_tokens == plan.max_tokens
    assert shortened(plan, 66.0, 40).max_tokens == 40
    assert shortened(plan, 0.1, 40).max_tokens == 8


def test_there_are_the_eleven_classes() -> None:
    assert len(PROMPTS) == 11
    assert all(len(set(texts)) == 3 for texts in PROMPTS.values())
    assert set(CHAT_CLASSES) < set(PROMPTS)


def beside(deviation: float, *, temperature: float = 0.0, bias: float = 1.0) -> list[Record]:
    """Plain answers beside plain ones; the logarithms of their ratios are normally distributed."""
    rng = random.Random(5)
    return [
        record("prose", 0, i, 20, bias * math.exp(rng.gauss(0, deviation)), temperature)
        for i in range(200)
    ]


@pytest.mark.parametrize("deviation", [0.01, 0.04, 0.07, 0.5])
def test_a_busy_machine_shows_in_plain_beside_plain(deviation: float) -> None:
    found = steadiness(beside(deviation))
    assert found.deviation == pytest.approx(deviation, rel=0.2)
    assert found.is_too_busy == (deviation > MOST_DEVIATION)


def test_timelines_that_are_not_equally_fast_are_no_noise() -> None:
    records = beside(0.01, bias=1.3) + beside(0.01, temperature=0.7, bias=0.8)
    assert not steadiness(records).is_too_busy
    assert steadiness(records).n_pairs == 400


def test_one_answer_that_was_disturbed_is_not_a_busy_machine() -> None:
    assert not steadiness([*beside(0.01)[:9], record("prose", 0, 9, 20, 3.0)]).is_too_busy


def test_too_few_pairs_tell_nothing() -> None:
    found = steadiness(beside(0.5)[:3])
    assert (found.n_pairs, found.deviation, found.is_too_busy) == (3, None, False)


def test_drafted_answers_say_nothing_of_the_machine() -> None:
    drafted = [record("prose", "auto", i, 20, 2.0**i) for i in range(9)]
    assert steadiness(drafted).n_pairs == 0


@pytest.mark.parametrize(("deviation", "said"), [(0.01, "steady up to"), (0.5, "too busy to")])
def test_the_report_says_so(deviation: float, said: str) -> None:
    console = Console(file=io.StringIO(), width=200)
    measured = Result(
        beside(deviation), [Prefill("prose", 0, 10, 1.0)], {}, peak_memory_bytes=1 << 20
    )
    report.show(console, Plan(("prose",), (0.0,), (0,), 200), measured, COST, 0.97)
    assert isinstance(console.file, io.StringIO)
    assert said in console.file.getvalue()
    assert ("97% of the weights' bytes" in console.file.getvalue()) == bool(our_kernels.formats())
    written = report.as_json(Plan(), measured, COST)["plain_beside_plain"]
    assert written["too_busy"] == (deviation > written["most"])
    assert written["pairs"] == 200
