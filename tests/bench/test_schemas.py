"""The benchmark of answers in a schema: its tasks, its numbers, one run of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.schema_tasks import TASKS
from benchmarks.schemas import Found, as_json, said
from mtp_cli.engine.grammar.source import json_schema

ROOT = Path(__file__).parents[2]


def test_there_are_ten_schemas_that_can_be_followed() -> None:
    assert len(TASKS) == 10
    for task in TASKS.values():
        assert json_schema(task.schema)


def test_ratios_are_taken_within_pairs() -> None:
    found = Found([10.0, 20.0, 40.0], [20.0, 60.0, 160.0], [30.0, 30.0, 60.0], 12, 4, 1)
    content = as_json({"dates": found})
    one = content["schemas"]["dates"]
    assert (one["plain_per_s"], one["drafting_per_s"], one["over_plain"]) == (20.0, 60.0, 3.0)
    assert one["over_free_text"] == 2.0
    assert content["summary"]["over_plain"] == {"geomean": pytest.approx(3.0), "worst": 3.0}
    assert said(content) == "over plain 3.00, worst 3.00; over free text 2.00; 1 answers differ"


def test_one_run(tmp_path: Path) -> None:
    out = tmp_path / "schemas.json"
    few = ["--only", "tool call", "--repetitions", "1", "--seconds", "0", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.schemas", *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert content["benchmark"] == "schemas"
    assert content["schemas"]["tool call"]["rounds"] < content["schemas"]["tool call"]["tokens"]
    assert content["summary"]["differing"] == 0
