"""mtp-bench end to end on a tiny random model, and its wrong usage."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.document import speed
from mtp_cli.bench import cli
from mtp_cli.bench.measure import Bench, Plan
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.engine import Engine
from mtp_cli.engine.tuning import TUNING
from tests.chat.scripted import CHATML
from tests.engine import tiny


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mtp-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tiny.llama().write(tmp_path / "tiny.gguf")


def test_measures_everything_that_was_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    json_file, plot_file = model.with_name("found.json"), model.with_name("found.png")
    status = run(
        monkeypatch,
        *("--model", model, "--classes", "chat,editing", "--temperatures", "0,0.7"),
        *("--depths", "2,auto", "--repetitions", 2, "--max-tokens", 12),
        *("--json", json_file, "--plot", plot_file, "--threads", 1),
    )
    assert status == 0
    out = capsys.readouterr()
    assert "editing" in out.out
    assert "auto over plain" in out.out
    assert "no MTP heads" in out.err
    found = json.loads(json_file.read_text())
    shapes = {(r["class"], r["temperature"], r["depth"], r["repetition"]) for r in found["records"]}
    assert len(found["records"]) == len(shapes) == 2 * 2 * 3 * 2
    for record in found["records"]:
        assert record["tokens"] == 11
        assert record["seconds"] > 0
        assert record["rounds"] + record["accepted"] == 11
        assert sum(record["by_position"]["accepted"]) == record["accepted"] <= record["verified"]
    for name in ("plain_tokens_per_s", "auto_over_plain", "auto_over_best_static"):
        assert set(found["summary"][name]) == {"chat", "editing", "geomean", "worst"}
    assert found["forks"] == {d: {"forks": 0, "answers": 4} for d in ("0", "2", "auto")}
    assert found["peak_memory_bytes"] > 1e6
    assert found["benchmark"] == "mtp-bench"
    assert str(model.parent) not in json_file.read_text()
    assert found["constants"]["policy"]["n_futures"] == TUNING.policy.n_futures
    for temperature in ("0", "0.7"):
        assert set(found["over_plain"][temperature]) == {"0", "2", "auto"}
    assert "| chat |" in speed.greedy({"mtp-bench-q4_1": found})
    assert plot_file.read_bytes().startswith(b"\x89PNG")


def test_prompts_have_the_system_prompt_in_front(tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = CHATML
    with Engine.open(spec.write(tmp_path / "tiny.gguf"), n_ctx=512, n_threads=1) as engine:
        bench = Bench(engine, Plan(("chat",), (0.0,), (0,), 1, 2), system="Be brief.")
        trace = bench.run(lambda _cls: None).traces["chat", 0]
        text = b"".join(engine.piece(token, special=True) for token in trace.prompt).decode()
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n{PROMPTS['chat'][0]}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--classes", "python,prose"),
        ("--depths", "9"),
        ("--depths", "1,x"),
        ("--temperatures", "warm"),
        ("--temperatures", "-1"),
        ("--repetitions", "0"),
        ("--threads", "513"),
        ("--ctx", str(2**31)),
        ("--gpu-layers", str(2**31)),
        ("--model", ""),
        ("--heads", ""),
        ("--plot", "x.png", "--depths", "0,1"),
        ("--plot", "x.png", "--temperatures", "1"),
        ("--unknown",),
    ],
)
def test_wrong_usage_is_told_apart(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = model.with_name("nowhere") / "found.json"
    assert run(monkeypatch, "--model", model, "--json", missing) == 1
    err = capsys.readouterr().err
    assert err == f"error: {missing.parent}: no such folder; name another file\n"


def test_a_plot_without_matplotlib_is_told_before_anything_runs(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(monkeypatch, "--model", model, "--plot", model.with_name("found.png")) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: --plot needs matplotlib; in a clone of mtp-cli: ")
    assert err.count("\n") == 1


def test_a_missing_model_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--model", "no-such.gguf") == 1
    assert "no-such.gguf" in capsys.readouterr().err
