"""benchmarks/few_rows.py and benchmarks/ttft.py end to end on a tiny random model."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import cached_prompt, few_rows, ttft
from benchmarks.bandwidth import read_bytes_per_s
from benchmarks.document.page import page
from benchmarks.llama_bench import prompts_ms
from benchmarks.row_costs import COUNTS, FEW_COUNTS, Measurement
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.quantize import quantize
from mtp_cli.errors import MtpError
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
    few_rows.main(
        model=quantized, formats="", threads=1, context=4, seconds=0.001, peer_bench=None,
        json_file=out,
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert "prompt 512" in shown
    assert "peer" not in shown
    found = json.loads(out.read_text())
    assert list(found["rows"]) == [str(n) for n in FEW_COUNTS], "rows are dear here"
    for row in (*found["rows"].values(), found["prompt_512"]):
        assert row["ours_ms"] > 0
        assert row["llama_ms"] > 0
        assert row["difference"] == 0, "a row has the bits that it has alone"
    assert found["bandwidth_share"] == found["rows"]["1"]["bandwidth_share"] > 0
    assert found["ours_share"] > 0.9
    assert (found["format"], found["model"]["format"]) == ("q8_0", "q8_0")
    assert "| Q8_0 |" in page({"few-rows": {**found, "formats": {"q8_0": found}}})


@needs_kernels
def test_as_many_turns_as_time_allows(model: Path) -> None:
    """By a clock that goes on by 10 ms each time it is looked at."""
    steps: list[str] = []
    found = Measurement(model, 4, 1, 25.0, None, steps.append, clock=hundredths())
    assert found.counts == COUNTS
    assert len(found.rows_ms["llama", 16]) > 5
    assert len(found.prompt_ms["ours", 512]) > 5
    assert found.prompt_pieces == {64: 1, 512: 1}
    assert steps[0] == "bits"
    hasty = Measurement(model, 4, 1, 0.01, clock=hundredths())
    assert hasty.counts == FEW_COUNTS
    assert (len(hasty.rows_ms["llama", 8]), len(hasty.prompt_ms["ours", 512])) == (3, 1)
    assert hasty.prompt_pieces == {64: 16, 512: 16}


def hundredths() -> Callable[[], float]:
    ticks = itertools.count()
    return lambda: next(ticks) / 100


@needs_kernels
def test_a_peer_beside(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, peer = tmp_path / "rows.json", llama_bench(tmp_path, FAKE)
    few_rows.main(
        model=model, formats="", threads=1, context=4, seconds=0.001, peer_bench=peer,
        json_file=out,
    )  # fmt: skip
    assert "peer" in capsys.readouterr().out
    found = json.loads(out.read_text())
    peers = {n: row["peer_ms"] for n, row in found["rows"].items()}
    assert peers == {str(n): 2.0 * n for n in FEW_COUNTS}
    assert found["prompt_512"]["peer_ms"] == 1024
    assert str(tmp_path) not in out.read_text()


FAKE = """
import json, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert given["-n"] == "0" and given["-t"] == "1" and given["-o"] == "json"
ns = lambda n: [int(n) * 2_000_000] * int(given["-r"])
print(json.dumps([{"n_prompt": int(n), "samples_ns": ns(n)} for n in given["-p"].split(",")]))
"""


def llama_bench(folder: Path, program: str) -> Path:
    """A stand-in for llama-bench."""
    path = folder / "llama-bench"
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('cannot load it')", "status 1: cannot load it"),
        ("print('fast')", "no JSON"),
        ("print('[{}]')", "no JSON"),
        ('print(\'[{"n_prompt": 8, "samples_ns": [1]}]\')', "no time of a prompt of 4 tokens"),
    ],
)
def test_a_peer_that_gives_no_times(program: str, message: str, tmp_path: Path) -> None:
    peer = llama_bench(tmp_path, program)
    with pytest.raises(MtpError, match=message):
        prompts_ms(peer, tmp_path / "m.gguf", (4, 8), 1, 1)


def test_a_peer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="--peer-bench wants a llama-bench"):
        prompts_ms(tmp_path / "nothing", tmp_path / "m.gguf", (4,), 1, 1)


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


def test_the_first_token_of_a_prompt_that_was_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached_prompt.main(
        model=model, heads=None, tokens=600, repetitions=2, threads=1,
        json_file=tmp_path / "cached.json",
    )  # fmt: skip
    assert "read / found" in capsys.readouterr().out
    found = json.loads((tmp_path / "cached.json").read_text())
    assert found["logits_that_differ"] == 0
    assert found["lowest"] <= found["read_over_found"] <= found["highest"]
    assert "| 600 tokens |" in page({"cached-prompt": found})


def test_a_turn_s_ratio_is_taken_within_it() -> None:
    found = ttft.summary([(1.0, 2.0), (10.0, 10.0), (4.0, 2.0)])
    assert found == {"off_s": 4, "on_s": 2, "on_over_off": 1, "lowest": 0.5, "highest": 2}
