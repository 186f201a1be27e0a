"""The form of a recorded result: what it holds for, and its file."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import typer
from gguf import GGMLQuantizationType, GGUFWriter
from typer.testing import CliRunner

from mtp_cli.bench import recording
from mtp_cli.bench.weights import Weights
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from tests.engine import tiny


def git(folder: Path, *arguments: str) -> None:
    known = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    environment = recording.folders_own(os.environ)
    command = ["git", "-C", str(folder), *known, *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def test_a_result_says_what_it_holds_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.llama().write(tmp_path / "tiny.gguf")
    monkeypatch.setattr(sys, "argv", ["x", "--model", str(model), f"--json={tmp_path}/out.json"])
    found = recording.provenance("few_rows", "python -m x", 3, ModelFiles(model, None), quick=True)
    assert found["command"] == "python -m x --model tiny.gguf --json=out.json"
    assert found["machine"]["cores"] == 3
    assert found["machine"]["processor"]
    assert found["llama_cpp_python"] == version("llama-cpp-python")
    assert found["model"]["file"] == "tiny.gguf"
    assert found["model"]["bytes"] == model.stat().st_size
    assert (found["heads"], found["quick"]) == (None, True)
    text = json.dumps(found)
    assert str(tmp_path) not in text
    assert platform.node() not in text


def test_arguments_are_quoted_as_a_shell_wants_them() -> None:
    assert recording.command_line("x", ["-m", "/a/b c.gguf"]) == "x -m 'b c.gguf'"
    assert recording.command_line("x", ["--depths", "0,auto"]) == "x --depths 0,auto"


@pytest.mark.parametrize("variables", [(), ("GIT_DIR", "GIT_WORK_TREE")])
def test_a_commit_is_dirty_when_what_is_measured_was_changed(
    tmp_path: Path, variables: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables:  # as in a hook
        monkeypatch.setenv(name, str(tmp_path / "another"))
    assert recording.commit(tmp_path) == version("mtp-cli")  # no repository
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    clean = recording.commit(tmp_path)
    assert 7 <= len(clean) <= 12
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "ttft.json").write_text("{}")
    (tmp_path / "README.md").write_text("numbers\n")
    assert recording.commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("a = 2\n")
    assert recording.commit(tmp_path) == f"{clean}-dirty"


def test_a_file_reads_back_and_has_a_line_for_each_record(tmp_path: Path) -> None:
    records = [{"class": "chat", "seconds": n / 8, "counts": [1, 2, 3]} for n in range(100)]
    content = {"schema": 2, "nothing": {}, "text": 'a "b"', "records": records}
    path = tmp_path / "found.json"
    recording.write(path, content)
    assert json.loads(path.read_text()) == content
    assert len(path.read_text().splitlines()) == len(records) + 7
    recording.write(path, {"third": 1 / 3, "pair": (1, 2)})
    assert json.loads(path.read_text()) == {"third": 0.333333, "pair": [1, 2]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="cannot be written"):
        recording.write(tmp_path / "nowhere" / "found.json", {})


@pytest.mark.parametrize("name", ["busy", "cached_prompt", "few_rows", "scaled", "schemas", "ttft"])
def test_a_benchmark_says_so_before_it_measures(name: str, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(importlib.import_module(f"benchmarks.{name}").main)
    done = CliRunner().invoke(app, ["--json", str(tmp_path / "nowhere" / "found.json")])
    assert done.exit_code == 2
    assert "no such folder; name another file" in " ".join(done.stderr.replace("│", " ").split())


def write_model(path: Path, tensors: dict[str, tuple[tuple[int, ...], str]]) -> Path:
    """tensors: shape and format by name."""
    writer = GGUFWriter(path, "llama")
    for name, (shape, kind) in tensors.items():
        dtype = np.float16 if kind == "f16" else np.float32
        raw = GGMLQuantizationType.F16 if kind == "f16" else None
        writer.add_tensor(name, np.zeros(shape, dtype), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_weights_are_what_every_decode_multiplies_by(tmp_path: Path) -> None:
    tensors = {
        "token_embd.weight": ((8, 32), "f16"),
        "blk.0.attn_norm.weight": ((32,), "f32"),
        "blk.0.attn_q.weight": ((32, 32), "f16"),
        "blk.0.ffn_gate_inp.weight": ((4, 32), "f32"),
    }
    found = Weights.of(write_model(tmp_path / "tied.gguf", tensors))
    assert found.matrices == {"f16": 2 * (8 + 32) * 32, "f32": 4 * 4 * 32}
    assert found.n_bytes == 2560 + 512
    assert found.format == "f16"
    assert found.share(["f16", "q4_0"]) == 2560 / 3072
    tensors["output.weight"] = ((8, 32), "f32")
    tensors["blk.0.ffn_up_exps.weight"] = ((4, 8, 32), "f32")
    found = Weights.of(write_model(tmp_path / "experts.gguf", tensors))
    assert found.matrices == {"f16": 2 * 32 * 32, "f32": 4 * (4 + 8) * 32}
    assert found.experts == {"f32": 4 * 4 * 8 * 32}
    assert found.format == "f32"
    assert found.share(["f32"]) == (1536 + 4096) / (2048 + 1536 + 4096)
