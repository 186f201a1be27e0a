"""The policy inside the real engine, on tiny random models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest

from mtp_cli.engine import Depth, Engine, Generation, Sampling
from mtp_cli.engine.backend import binding
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.depth.learning import Learning
from mtp_cli.engine.depth.policy import DepthPolicy, FixedDepth, Seconds
from tests.engine import tiny

GREEDY = Sampling(temperature=0)
FORMATS = {
    "F32": gguf.GGMLQuantizationType.F32,
    "BF16": gguf.GGMLQuantizationType.BF16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
}


@pytest.fixture(scope="module", params=FORMATS)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    target = tiny.llama()
    model = target.quantized(FORMATS[request.param]).write(folder / "tiny.gguf")
    heads = tiny.heads_for(target, hidden="pre_norm").write(folder / "tiny-mtp.gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with Engine.open(model, heads, n_threads=1) as opened:
            yield opened


def prompt(engine: Engine) -> list[int]:
    """A prompt that repeats itself, and is in the cache but for its last token."""
    ids = tiny.random_ids(40) * 3
    list(engine.generate(ids, GREEDY, max_tokens=1, depth=0))
    return ids


def answer(
    engine: Engine,
    ids: list[int],
    depth: Depth | DepthPolicy,
    *,
    sampling: Sampling = GREEDY,
    exact: bool = False,
) -> Generation:
    generation = engine.generate(ids, sampling, max_tokens=60, depth=depth, exact=exact)
    list(generation)
    return generation


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.0, seed=5)])
def test_automatic_answers_are_plain_answers(engine: Engine, sampling: Sampling) -> None:
    """While costs are learned, and after that; these models' formats are exact in any company."""
    ids = prompt(engine)
    plain = answer(engine, ids, 0, sampling=sampling)
    for _ in range(3):
        assert answer(engine, ids, "auto", sampling=sampling, exact=True).tokens == plain.tokens


def test_exact_answers_are_plain_answers(engine: Engine) -> None:
    engine.costs()
    ids = prompt(engine)
    plain = answer(engine, ids, 0).tokens
    depths: tuple[Depth, ...] = ("auto", 1, 4, 8)
    for depth in depths:
        assert answer(engine, ids, depth, exact=True).tokens == plain


def test_exact_answers_keep_to_row_counts_that_were_proven(engine: Engine) -> None:
    ids = prompt(engine)
    for _ in range(8):
        stats = answer(engine, ids, 8, exact=True).stats
        assert stats.exact
        assert not stats.inexact
    believed = engine.exact_row_counts
    assert believed[0] == 1
    assert len(stats.verified) < max(believed)
    assert (stats.checking_s > 0) == (len(believed) > 1)


def test_what_was_proven_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = tiny.llama().quantized(gguf.GGMLQuantizationType.Q8_0)
    model = spec.write(tmp_path / "tiny.gguf")
    found = []
    for n_answers in (8, 0):
        with Engine.open(model, n_threads=1) as engine:
            for _ in range(n_answers):
                answer(engine, prompt(engine), 8, exact=True)
            found.append(engine.exact_row_counts)
    assert found[0] == found[1]
    assert len(found[0]) > 3


def test_the_first_answer_waits_for_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs are learned while answering, and kept once they are known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = tiny.llama().write(tmp_path / "tiny.gguf")
    with Engine.open(model, n_threads=1) as engine:
        first = answer(engine, prompt(engine), "auto")
        assert isinstance(first.policy, Learning)
        for _ in range(60):  # a few, or more where other programs disturb the clock
            last = answer(engine, prompt(engine), "auto")
            if isinstance(last.policy, ExpectedValue):
                break
        assert isinstance(last.policy, ExpectedValue)
        assert first.tokens == last.tokens
    assert json.loads((tmp_path / "mtp-cli" / "costs.json").read_text())
    with Engine.open(model, n_threads=1) as engine:
        assert isinstance(answer(engine, prompt(engine), "auto").policy, ExpectedValue)


@pytest.fixture
def costs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model's rounds are mostly Python, whose microseconds may refute what was measured."""
    monkeypatch.setattr(CostModel, "is_refuted", lambda self: False)


@pytest.mark.usefixtures("costs_stay")
def test_what_is_accepted_otherwise_is_learned_from_apart(engine: Engine) -> None:
    """Drawn drafts, and a seed's best guesses; penalties, which leave copies little chance."""
    sampled = Sampling(temperature=1.0)
    seeded, penalised = (
        dataclasses.replace(sampled, **fields) for fields in ({"seed": 5}, {"penalty_repeat": 1.2})
    )

    engine.costs()

    def policy(sampling: Sampling, *, exact: bool = False) -> DepthPolicy:
        return engine.generate([1], sampling, max_tokens=1, exact=exact).policy

    kinds = [policy(sampling) for sampling in (GREEDY, sampled, seeded, penalised)]
    kinds += [policy(sampling, exact=True) for sampling in (GREEDY, sampled)]
    assert len(set(map(id, kinds))) == len(kinds)
    assert policy(Sampling(temperature=0.7)) is kinds[1]
    assert policy(dataclasses.replace(seeded, seed=6)) is kinds[2]
    assert policy(seeded, exact=True) is kinds[5]


@pytest.mark.usefixtures("costs_stay")
def test_the_policy_learns_of_each_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.costs()
    opened: list[ExpectedValue] = []
    monkeypatch.setattr(ExpectedValue, "open_answer", lambda self: opened.append(self))
    ids = prompt(engine)
    answers = [answer(engine, ids, depth) for depth in ("auto", 3, "auto")]
    assert opened == [answers[0].policy, answers[2].policy]


def test_costs_are_measured_once(engine: Engine) -> None:
    costs = engine.costs()
    assert all(seconds > 0 for seconds in costs.table.target_s)
    assert 0 < costs.table.step_s < float("inf")
    assert engine.costs() is costs


def test_costs_are_measured_again_where_other_backends_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's table says nothing of a build with a GPU, nor which row counts are exact there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = tiny.llama().write(tmp_path / "tiny.gguf")

    def n_measured() -> int:
        with Engine.open(model, n_threads=1) as engine:
            engine.costs()
        (file,) = tmp_path.rglob("costs.json")
        return len(json.loads(file.read_text()))

    assert [n_measured(), n_measured()] == [1, 1]
    monkeypatch.setattr(binding.lib, "llama_print_system_info", lambda: b"CUDA : ARCHS = 900 | ")
    assert n_measured() == 2


def test_backends_are_told_apart_by_their_devices_too() -> None:
    built, *devices = binding.backends()
    assert "CPU" in built
    assert "CPU" in devices
    assert len(devices) % 2 == 0  # a name and a description each


def test_a_policy_of_ones_own_can_decide(engine: Engine) -> None:
    seen = []

    class Noting(FixedDepth):
        def observe(self, chosen: object, seconds: Seconds) -> None:
            seen.append(seconds)

    answer(engine, prompt(engine), Noting(2))
    assert seen
    assert all(part >= 0 for seconds in seen for part in (seconds.draft, seconds.verify))
