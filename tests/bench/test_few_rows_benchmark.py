"""benchmarks/few_rows.py and benchmarks/ttft.py end to end on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import few_rows, ttft
from benchmarks.bandwidth import read_bytes_per_s
from benchmarks.document.page import page
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.quantize import quantize
from tests.engine import tiny

needs_kernels = pytest.mark.skipif(not our_kernels.formats(), reason="no kernels of ours here")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny.llama().write(tmp_path / "tiny.gguf")


@needs_kernels
def test_rows_of_one_model_and_their_bits(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized, out = tmp_path / "tiny-q8_0.gguf", tmp_path / "rows.json"
    quantize(model, quantized, "q8_0")
    few_rows.main(model=quantized, formats="", threads=1, context=4, repetitions=1, json_file=out)
    shown = capsys.readouterr().out
    assert "prompt 512" in shown
    found = json.loads(out.read_text())
    assert list(found["rows"]) == [str(n) for n in few_rows.COUNTS]
    for row in (*found["rows"].values(), found["prompt_512"]):
        assert row["ours_ms"] > 0
        assert row["llama_ms"] > 0
        assert row["difference"] == 0, "a row has the bits that it has alone"
    assert found["bandwidth_share"] == found["rows"]["1"]["bandwidth_share"] > 0
    assert found["ours_share"] > 0.9
    assert (found["format"], found["model"]["format"]) == ("q8_0", "q8_0")
    assert "| Q8_0 |" in page({"few-rows": {**found, "formats": {"q8_0": found}}})


def test_memory_is_read_by_several_threads() -> None:
    assert read_bytes_per_s((1 << 16) + 3, 2) > 0


def test_the_first_token_with_and_without_drafting(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = tiny.heads_for(tiny.llama(), hidden="pre_norm").write(tmp_path / "heads.gguf")
    ttft.main(
        model=model, heads=heads, plain=None, lengths="20,40", repetitions=2, clock="cpu",
        threads=1, json_file=tmp_path / "ttft.json",
    )  # fmt: skip
    assert "on / off" in capsys.readouterr().out
    found = json.loads((tmp_path / "ttft.json").read_text())
    assert (found["clock"], list(found["prompts"])) == ("cpu", ["20", "40"])
    for one in found["prompts"].values():
        assert one["lowest"] <= one["on_over_off"] <= one["highest"]
    assert "| 40 tokens |" in page({"ttft": found})


def test_a_turn_s_ratio_is_taken_within_it() -> None:
    found = ttft.summary([(1.0, 2.0), (10.0, 10.0), (4.0, 2.0)])
    assert found == {"off_s": 4, "on_s": 2, "on_over_off": 1, "lowest": 0.5, "highest": 2}
