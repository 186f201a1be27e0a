"""benchmarks/busy.py: what counts as idle, what a run gives, and a llama-bench beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import busy
from benchmarks.llama_bench import written_per_s
from mtp_cli.engine import Engine, Sampling
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from tests.engine import tiny
from tests.engine.specs import SPECS

ANSWER = """#!{python}
import json, sys
wanted = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print(json.dumps([{{"avg_ts": float(wanted["-n"]) / 2}}]))
"""


def peer(path: Path, text: str) -> Path:
    path.write_text(text.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_other_programs_compute_meanwhile_and_none_is_left() -> None:
    def others() -> int:
        return len(psutil.Process().children())

    before = others()
    with busy.load(2):
        assert others() == before + 2
    assert others() == before


def test_speeds_are_held_to_the_idle_machine_with_all_cores() -> None:
    speeds: busy.Speeds = {
        (0, busy.ALL, "plain"): [8.0, 10.0, 12.0],
        (0, busy.PEER, "plain"): [20.0],
        (1, busy.FOLLOWING, "plain"): [7.0, 8.0],
        (1, busy.PEER, "plain"): [5.0],
    }
    loads = busy.as_json(speeds)["loads"]
    assert loads["1"][busy.FOLLOWING]["plain"] == {"tokens_per_s": 7.5, "of_idle": 0.75}
    assert loads["1"][busy.PEER]["plain"]["of_idle"] == 0.25


def test_a_run_has_all_threads_at_every_load(tmp_path: Path) -> None:
    model = SPECS["llama"]().write(tmp_path / "m.gguf")
    files = ModelFiles(model, SPECS["heads"]().write(tmp_path / "h.gguf"))
    found = busy.measure(files, [0, 1], 0.05, 1, peer(tmp_path / "llama-bench", ANSWER))
    content = busy.as_json(found)
    assert content["loads"].keys() == {"0", "1"}
    for by_threads in content["loads"].values():
        assert by_threads.keys() == {busy.FOLLOWING, busy.ALL, busy.ONE, busy.PEER}
        assert by_threads[busy.PEER]["plain"]["tokens_per_s"] == busy.N_PEER / 2
        assert by_threads[busy.FOLLOWING].keys() == set(busy.DEPTHS)
    assert busy.table(content).row_count == 8


def test_a_model_that_ends_at_once_is_one_line_and_no_endless_run(tmp_path: Path) -> None:
    spec = tiny.llama()
    prompt = [5, 6, 7]
    with Engine.open(spec.write(tmp_path / "m.gguf"), n_ctx=64, n_threads=1) as engine:
        (said,) = engine.generate(prompt, Sampling(temperature=0), max_tokens=1, depth=0)
    spec.keys["tokenizer.ggml.eos_token_id"] = said[0]
    with (
        Engine.open(spec.write(tmp_path / "ends.gguf"), n_ctx=64, n_threads=1) as engine,
        pytest.raises(MtpError, match="answers in fewer than 8 tokens"),
    ):
        busy.tokens_per_s(engine, prompt, 0, 100.0)


def test_a_llama_bench_that_fails_is_one_clear_line(tmp_path: Path) -> None:
    broken = peer(tmp_path / "llama-bench", "#!{python}\nraise SystemExit('no such model')\n")
    with pytest.raises(MtpError, match="no such model"):
        written_per_s(broken, tmp_path / "m.gguf", 8, 2)
