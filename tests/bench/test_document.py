"""benchmarks/document: the committed documents are those of the committed results."""

from __future__ import annotations

import copy
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.document import charts
from benchmarks.document.__main__ import ROOT, documents
from benchmarks.document.numbers import with_numbers
from benchmarks.document.page import GPU, page
from benchmarks.document.results import FOLDER, holds_for, read_all
from benchmarks.steps import STEPS
from tests.bench import made_up

README = "# x\n\n<!-- numbers -->\nold\n<!-- /numbers -->\n\nend\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def due(root: Path, results: dict[str, made_up.Content]) -> list[str]:
    return [one.path.name for one in documents(results, root) if not one.is_current()]


def test_what_is_committed_is_what_the_results_say() -> None:
    due = [one.path.name for one in documents(read_all(FOLDER), ROOT) if not one.is_current()]
    assert not due, "python -m benchmarks.document writes them"


def test_only_what_can_be_recorded_is_a_result() -> None:
    known = {step.name for step in STEPS} | {GPU}  # of which one comes from another machine
    assert set(read_all(FOLDER)) <= known == set(made_up.everything())


def test_documents_follow_the_results(root: Path) -> None:
    results = made_up.everything()
    every = ["measured.md", "speed.svg", "rows.svg", "copying.svg", "README.md"]
    assert due(root, results) == every
    for one in documents(results, root):
        one.write()
    assert due(root, results) == []
    results["few-rows"]["formats"]["q4_1"]["rows"]["4"]["ours_ms"] = 3.0
    assert due(root, results) == ["measured.md", "rows.svg", "README.md"]
    del results["few-rows"]
    for one in documents(results, root):
        one.write()
    assert not (root / "docs" / "rows.svg").exists()
    assert due(root, results) == []


def test_every_table_has_its_numbers_and_what_they_hold_for() -> None:
    results = made_up.everything()
    found = page(results)
    for row in (
        "| Python | 100 | 1.20 | 1.10 | 1.30 | 1.30 | 1.30 | 1.30 |",
        "| **geometric mean** |  | 1.67 | 1.57 | **1.77** | **1.68** | **1.86** | **1.99** |",
        "| answers that are not plain decoding's |  | 0 of 55 | 0 of 55 | 0 of 55 | 0 of 55 "
        "| 0 of 55 | 0 of 55 |",
        "| C++ | 1.25 | 1.15 | 1.35 | 1.22 | 1.12 | 1.32 |",
        "| automatic | its best setting: plain | 2.12 (1.50) | 2.12 (1.50) |",
        "| Q4_1: llama.cpp's, ours | 13.0, 8.0 | 17.0, 9.0 | 21.0, 10.0 | 25.0, 11.0 | "
        "33.0, 13.0 | 41.0, 15.0 | 900, 500 |",
        "| Q4_1 | 100% | 0.50 | 0.50 | 0 | 0.25 |",
        "| 1,000 tokens | 0.200 | 0.202 | 1.01 | 0.98 to 1.04 |",
        "| scaled width, 4,032 bf16 | 24 | 1.77 | 1.30 | 0.80 | 0 of 55 |",
        "| BF16 | 9 | 432 | 1 |",
        "| depth 3 | 0.150 | 0.170 |",
        "| dates | 40 | 100 | 4.50 | 9.00 | 40 | 100 | 4.50 | 9.00 |",
        "| **geometric mean** |  |  | **3.00** | 6.00 |  |  | **3.00** | 6.00 |",
        "beside itself, measured likewise, has 0.99 to 1.09",
        "| Python | 100 | 1.30 | 100 | 1.30 |",
        "| **geometric mean** |  | 1.77 |  | 2.21 |",
        "| weights' bytes that our kernels take |  | 97% |  | 97% |",
        "| automatic | its best setting of each class | 1.20 (1.20) | 1.20 (1.20) |",
        "|  | its best setting: which | ngram-mod | ngram-mod |",
        "| Qwen2.5-Coder 1.5B | 13.0, 8.0, 30.0 | 17.0, 9.0, 30.0 | 25.0, 11.0, 30.0 | "
        "41.0, 15.0, 30.0 | 900, 500 | 0.50 |",
        "| layers on the card | 31 of 31, 2 of 2 |",
        "| best depth, of plain | 1.67 (1) |",
        "| exact rows | 1-3, 8 |",
        "- first token of 1,000: 0.100 s, drafting 0.110 s (1.10)",
    ):
        assert row in found
    said = " ".join(found.split())
    assert all(" ".join(holds_for(content).split()) in said for content in results.values())
    assert max(len(line) for line in found.splitlines() if not line.startswith("|")) <= 120
    assert "Not recorded" not in found


def test_what_was_not_recorded_is_said_not_to_be() -> None:
    found = page({})
    assert found.count("Not recorded yet") == 12
    assert "| " not in found
    assert ".svg" not in found
    for step in STEPS:
        assert step.name in found
    some = page({"mtp-bench-q8_0": made_up.mtp_bench()})
    assert "| class | Q8_0 plain, tok/s | depth 1 | depth 2 | automatic: Q8_0 |" in some
    assert "record mtp-bench-q4_1 mtp-bench-q4_0 mtp-bench-bf16`" in some


def test_a_result_says_where_it_comes_from() -> None:
    quick = made_up.head("ttft", "python -m benchmarks.ttft", quick=True)
    assert " ".join(holds_for(quick).split()) == (
        "`python -m benchmarks.ttft` · 2026-01-02, commit `c0ffee1` · "
        "Abacus 9, 2 cores, our kernels with AVX-512 · llama-cpp-python 0.3.36 · "
        "**a quick run**: fewer repetitions"
    )
    assert holds_for(quick, "Q4_1").splitlines()[1].startswith("  ")
    quick["machine"] = {"processor": "Abacus 9", "cores": 1, "vectors": None}
    assert "Abacus 9, 1 core, llama.cpp's kernels" in " ".join(holds_for(quick).split())


def test_numbers_stand_between_their_marks() -> None:
    found = with_numbers(README, made_up.everything())
    assert found.startswith("# x\n\n<!-- numbers -->\n| what | number | command |")
    assert found.endswith(" |\n<!-- /numbers -->\n\nend\n")
    assert "1.77, worst class 1.30 | `mtp-bench --depths 0,1,2,auto` |" in found
    assert "11.0 ms, 25.0 ms" in found
    assert "| 1 of 19 |" in found
    assert len(found.splitlines()) == len(README.splitlines()) - 1 + 2 + 5
    assert with_numbers(found, made_up.everything()) == found
    quick = with_numbers(README, {"ttft": {**made_up.ttft(), "quick": True}})
    assert "| 1.01 | `python -m benchmarks.ttft`, a quick run |" in quick
    assert "old" not in with_numbers(README, {})
    assert "Nothing is recorded yet" in with_numbers(README, {})
    assert with_numbers("# no marks\n", made_up.everything()) == "# no marks\n"


def test_the_best_fixed_depth_may_be_none() -> None:
    slow = made_up.mtp_bench()
    for depth in ("1", "2"):
        slow["over_plain"]["0"][depth]["chat"] = 0.5
    numbers = charts.speed({"mtp-bench-q4_1": slow}).numbers["Q4_1"]
    assert numbers["chat"] == [2.3, 1.0]
    assert numbers["Python"] == [1.3, 1.2]


def test_the_same_numbers_give_the_same_bytes() -> None:
    results = made_up.everything()
    for make in (charts.speed, charts.rows):
        chart, again = make(results), make(copy.deepcopy(results))
        svg = chart.svg()
        assert svg == again.svg()
        assert chart.mark in svg
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert not any(line != line.rstrip() for line in svg.splitlines())
    assert not charts.rows({}).numbers
