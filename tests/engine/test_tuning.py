"""The constants that things are tuned by: each is explained, and each can be swept."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import tuning as benchmark
from mtp_cli.engine.depth.automatic import ExpectedValue
from mtp_cli.engine.depth.cost import Correction, CostModel
from mtp_cli.engine.depth.survival import HeadAcceptance
from mtp_cli.engine.tuning import TUNING, Entry, entries, replaced
from tests.engine.depth.machines import TABLES, made_up
from tests.engine.depth.simulation import Machine, replay

LOG = Path(__file__).parents[2] / "benchmarks" / "LOG.md"
TITLES = re.findall(r"^### \d{4}-\d\d-\d\d · (.*)$", LOG.read_text(), re.M)
ALL = {entry.name: entry for entry in entries()}


@pytest.mark.parametrize("entry", ALL.values(), ids=ALL)
def test_it_has_a_unit_a_reason_and_an_entry_in_the_log(entry: Entry) -> None:
    assert entry.unit
    assert entry.why
    assert not entry.log or any(title.startswith(entry.log) for title in TITLES), entry.log


def test_a_changed_one_changes_nothing_else() -> None:
    changed = {e.name: e.value for e in entries(replaced(TUNING, "policy.margin", 9.0))}
    assert changed.pop("policy.margin") == 9.0
    assert changed == {name: e.value for name, e in ALL.items() if name != "policy.margin"}


def test_nobody_changes_one_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TUNING.policy.margin = 1.0  # type: ignore[misc]


def test_the_policy_goes_by_them() -> None:
    table = TABLES["few rows Q4_1"]

    def n_verified(margin: float) -> int:
        tuning = replaced(replaced(TUNING, "policy.margin", margin), "policy.heads_first", 9.0)
        policy = ExpectedValue(CostModel(table), tuning=tuning)
        return sum(replay(made_up(200, right=0.8), Machine(table), policy).stats.verified)

    assert n_verified(0.06) > 100
    assert n_verified(100.0) == 0


def test_costs_and_survival_go_by_them() -> None:
    doubtful = dataclasses.replace(TUNING.survival, caution=3.0)
    usual, cautious = HeadAcceptance(), HeadAcceptance(doubtful)
    assert cautious.predict(0, 0.9, 0) < usual.predict(0, 0.9, 0)
    trusting = Correction(2, dataclasses.replace(TUNING.cost, noise=1e-3))
    wary = Correction(2, dataclasses.replace(TUNING.cost, noise=1.0))
    for correction in (trusting, wary):
        correction.observe(0, 1.2)
    assert trusting.factors[0] > wary.factors[0] > 1


def test_the_benchmark_prints_and_writes_all(tmp_path: Path) -> None:
    app = CliRunner()
    command = typer.Typer()
    command.command()(benchmark.main)
    shown = app.invoke(command, [], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in ALL)
    written = app.invoke(command, ["--json", str(tmp_path / "tuning.json")])
    assert written.exit_code == 0
    groups = json.loads((tmp_path / "tuning.json").read_text())
    assert {f"{group}.{name}" for group, own in groups.items() for name in own} == ALL.keys()
    refused = app.invoke(command, ["--sweep", "policy.nosuch=1"])
    assert refused.exit_code == 2
