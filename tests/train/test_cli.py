"""The command line, as a stranger meets it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from mtp_cli.engine.files.gguf_header import read_shards, target_fingerprint
from mtp_convert.commands.record import record_in
from mtp_convert.gguf.model import open_model
from mtp_train.commands.heads import measured
from mtp_train.corpus import Role, Sample, is_held_out, write_shard
from tests.engine import tiny


def mtp_train(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mtp_train.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_help_names_every_step() -> None:
    found = mtp_train("--help")
    assert found.returncode == 0
    for step in ("generate", "fit", "export", "measure", "run", "-e '.[train]'"):
        assert step in found.stdout


def test_a_model_with_heads_inside_is_its_own_records_target(tmp_path: Path) -> None:
    """Whatever `--model` is, which a head file would be measured with."""
    spec = tiny.mimo2().quantized(GGMLQuantizationType.Q8_0)
    spec.keys["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model, other = spec.write(tmp_path / "m.gguf"), tiny.llama().write(tmp_path / "other.gguf")
    prompts = {"one": ("the end",)}
    measured(other, model, threads=1, record=True, max_tokens=4, prompts=prompts)
    record = record_in(open_model(model))
    assert record is not None
    assert record.target_format == "q8_0"


def test_an_output_that_must_not_be_written_is_said_first(tmp_path: Path) -> None:
    """The folder's checkpoint is not even looked for."""
    notes = tmp_path / "notes.txt"
    notes.write_text("years of work")
    model = tiny.llama().write(tmp_path / "model.gguf")
    for out, why in (
        (notes, f"{notes}: exists, and is no head file, nor written from"),
        (model, f"{model}: exists, and is no head file, nor written from"),
        (tmp_path / "nowhere" / "x.gguf", f"{tmp_path}/nowhere: no such folder"),
    ):
        pytest.importorskip("torch")
        found = mtp_train("export", "-f", str(tmp_path), "-m", str(model), "-o", str(out))
        assert (found.returncode, found.stdout, found.stderr.count("\n")) == (1, "", 1)
        assert found.stderr.startswith(f"error: {why}")
    assert notes.read_text() == "years of work"


def test_a_record_that_has_no_place_is_said_before_measuring(tmp_path: Path) -> None:
    model = tiny.llama().write(tmp_path / "model.gguf")
    found = mtp_train("measure", "--record", "-m", str(model), "-o", str(model))
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == f"error: {model}: holds no heads, of which a record could be\n"


def test_a_folder_that_is_none_is_said_before_training(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    found = mtp_train("fit", "-f", str(file))
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == f"error: {file}: not a folder; name another with --folder\n"


@pytest.mark.parametrize(
    ("command", "why"),
    [("fit", "no shards; run `mtp-train generate` first"), ("export", "no checkpoint to export")],
)
def test_an_empty_folder_is_one_line_and_exit_1(tmp_path: Path, command: str, why: str) -> None:
    pytest.importorskip("torch")
    found = mtp_train(command, "--folder", str(tmp_path))
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.startswith("error: ")
    assert why in found.stderr
    assert found.stderr.count("\n") == 1


def test_another_models_corpus_is_one_line_and_nothing_is_added_to_it(tmp_path: Path) -> None:
    sample = Sample(np.ones(4, np.int32), np.zeros(4, np.uint8), np.zeros((4, 2), np.float16))
    (tmp_path / "corpus").mkdir()
    write_shard(tmp_path / "corpus" / "shard-1-0000.npz", "0" * 64, [sample], [{}])
    found = mtp_train("generate", "--folder", str(tmp_path), "--bf16")
    assert found.returncode == 1
    assert found.stderr.startswith("error: ")
    assert "shard-1-0000.npz: another model wrote it" in found.stderr
    assert found.stderr.count("\n") == 1
    assert len(list(tmp_path.rglob("*.*"))) == 1


def test_too_little_text_is_one_line(tmp_path: Path) -> None:
    """A corpus whose every text is trained on, with none to measure with."""
    pytest.importorskip("torch")
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model = spec.write(tmp_path / "model.gguf")
    ids = np.arange(1, 13, dtype=np.int32)
    rows = np.zeros((len(ids), tiny.N_EMBD), np.float16)
    sample = Sample(ids, np.full(len(ids), Role.GREEDY, np.uint8), rows)
    assert not is_held_out(sample.prompt)
    (tmp_path / "corpus").mkdir()
    fingerprint = target_fingerprint(read_shards(model))
    write_shard(tmp_path / "corpus" / "shard-1-0000.npz", fingerprint, [sample], [{}])
    where = ("--folder", str(tmp_path), "-m", str(model))
    found = mtp_train("fit", *where, "--steps", "1", "--layers", "none")
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (1, "", 1)
    assert "too little text to train on and to measure with" in found.stderr
    assert "larger --tokens" in found.stderr


def test_an_interruption_says_how_to_go_on_and_leaves_nothing_unfinished(tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys["tokenizer.chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model, folder = spec.write(tmp_path / "model.gguf"), tmp_path / "work"
    command = [sys.executable, "-m", "mtp_train.cli", "generate", "--layers", "none"]
    command += ["-m", str(model), "-f", str(folder), "--tokens", "10000000", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        while not list(folder.glob("corpus/*.npz")):  # it has written for a while
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.endswith("interrupted; the same line again goes on from here\n")
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("arguments", [("measure", "--depth", "9"), ("fit", "--cooldown")])
def test_wrong_usage_exits_2(arguments: tuple[str, ...]) -> None:
    assert mtp_train(*arguments).returncode == 2
