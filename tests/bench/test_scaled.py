"""benchmarks/scaled.py end to end on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scaled
from benchmarks.document.page import page
from benchmarks.scaled import Agreement, agreement
from mtp_cli.errors import MtpError
from tests.engine import tiny


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny.llama().write(tmp_path / "target.gguf")


def run(target: Path, heads: Path | None, **options: object) -> None:
    given = {
        "sizes": "width,all", "formats": "bf16,q8_0", "classes": "chat", "depths": "1,auto",
        "repetitions": 1, "max_tokens": 12, "minutes": 1.0, "quick": False, "threads": 1,
        "workdir": target.parent, "json_file": None, **options,
    }  # fmt: skip
    scaled.main(model=target, heads=heads, **given)  # type: ignore[arg-type]


def test_every_number_is_labelled(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = tiny.heads_for(tiny.llama(), hidden="pre_norm").write(target.with_name("heads.gguf"))
    before = sorted(target.parent.glob("*"))
    found_file = target.with_name("found.json")
    run(target, heads, json_file=found_file)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 20
    assert all(line.startswith("scaled ") for line in lines)
    found = json.loads(found_file.read_text())
    labels = [run["label"] for run in found["runs"]]
    widths = {"width": 7 * tiny.N_EMBD, "all": 3 * tiny.N_EMBD}
    assert labels == [
        f"scaled {size}, {n} {kind}" for size, n in widths.items() for kind in ("bf16", "q8_0")
    ]
    for one in found["runs"]:
        assert {record["depth"] for record in one["records"]} == {0, 1, "auto"}
        assert one["summary"]["auto_over_plain"]["chat"] > 0
        assert one["agreement"]["n_same"] > one["agreement"]["n_tokens"] / 2
    assert found["is_scaled"]
    assert all(f"| {label} | 12 |" in page({"scaled": found}) for label in labels)
    left = set(target.parent.glob("*")) - set(before)
    assert left <= {found_file, target.parent / "cache"}, "the files of gigabytes are gone"


def test_a_model_without_heads_is_refused(target: Path) -> None:
    with pytest.raises(MtpError, match="has no heads of its own"):
        run(target, None)


def test_all_is_every_class_but_one_size() -> None:
    assert scaled._chosen("all", ("a", "b")) == ("a", "b")
    assert scaled._chosen("all", tuple(scaled.SIZES)) == ("all",)


def test_agreement_counts_up_to_the_first_difference() -> None:
    narrow = [1, 2, 3, 4, 5], [[2], [3], [9], [5]]
    assert agreement(narrow, narrow) == Agreement(5, 5, 4)
    assert agreement(narrow, ([1, 2, 3, 7], [[2], [8], [9]])) == Agreement(3, 5, 1)
    assert agreement(narrow, ([6], [])) == Agreement(0, 5, 0)
    assert Agreement(1, 2, 3) + Agreement(10, 20, 30) == Agreement(11, 22, 33)
