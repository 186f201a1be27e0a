"""What -o may be written over: files of ours, others when asked to, inputs never."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from mtp_convert.cli import main
from mtp_convert.commands.output import is_ours
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import encode_header, pairs
from mtp_convert.gguf.splits import COUNT, NUMBER
from tests.convert.checkpoints import smollm, write_checkpoint
from tests.convert.checkpoints_mtp import glm4moe
from tests.convert.conftest import Convert
from tests.convert.heads import write_head_file

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """mtp-convert with these arguments: exit status and stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mtp-convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), capfd.readouterr().err

    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny", glm4moe())


def test_a_file_of_ours_is_made_again(folder: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert run("convert", folder, "-o", out) == run("convert", folder, "-o", out)
    assert is_ours(out)
    assert GGUFReader(out).fields["mtp.written_by"].contents() == "mtp-convert"


@pytest.mark.parametrize("name", ["notes.txt", "thesis.gguf", "empty.gguf"])
def test_any_other_file_needs_force(name: str, folder: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / name
    content = b"" if name.startswith("empty") else b"years of work"
    out.write_bytes(content)
    status, err = run("convert", folder, "-o", out)
    assert (status, out.read_bytes()) == (1, content)
    assert err == f"error: {out}: exists, and is no GGUF of mtp-convert's; --force overwrites it\n"
    assert run("convert", folder, "-o", out, "--dry-run")[0] == 1
    assert run("convert", folder, "-o", out, "--force")[0] == 0
    assert is_ours(out)


def test_a_gguf_that_somebody_else_made(folder: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "downloaded.gguf"
    out.write_bytes(encode_header(pairs({"general.architecture": "llama"}), [], 32))
    before = out.read_bytes()
    assert run("convert", folder, "-o", out)[0] == 1
    assert out.read_bytes() == before


def links(tmp_path: Path, target: Path) -> list[Path]:
    """Other names of a file."""
    soft, hard = tmp_path / "soft.gguf", tmp_path / "hard.gguf"
    soft.symlink_to(target)
    os.link(target, hard)
    return [target, soft, hard, target.parent / "." / target.name]


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("command", ["strip", "extract"])
def test_never_over_the_model_it_reads(
    command: str, force: list[str], converted: Convert, run: Run, tmp_path: Path
) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(converted("glm4moe").read_bytes())
    before = model.read_bytes()
    for out in links(tmp_path, model):
        status, err = run(command, model, "-o", out, *force)
        assert (status, model.read_bytes()) == (1, before)
        assert err.startswith(f"error: {out}: is read by this very command")
    # The model under another name, its file as the output.
    assert run(command, tmp_path / "soft.gguf", "-o", model, *force)[0] == 1
    assert model.read_bytes() == before


def test_never_over_another_part_of_a_split_model(
    converted: Convert, run: Run, tmp_path: Path
) -> None:
    whole = read_gguf(converted("glm4moe"))
    names = list(whole.tensors)
    parts = []
    for i, chosen in enumerate((names[:9], names[9:])):
        values = dict(whole.pairs) if i == 0 else {}
        values |= pairs({NUMBER: i, COUNT: 2})
        path, position, described, data = tmp_path / f"m-0000{i + 1}-of-00002.gguf", 0, [], b""
        for name in chosen:
            raw = whole.read(name)
            described.append((name, whole.tensors[name].shape, whole.tensors[name].kind, position))
            data += raw + bytes(-len(raw) % 32)
            position = len(data)
        path.write_bytes(encode_header(values, described, 32) + data)
        parts.append(path)
    assert run("strip", parts[0], "-o", tmp_path / "out.gguf")[0] == 0
    for out in parts:
        assert run("strip", parts[0], "-o", out, "--force")[0] == 1


def test_never_over_a_checkpoints_files(folder: Path, run: Run, tmp_path: Path) -> None:
    names = [file.name for file in folder.iterdir()]
    assert "config.json" in names
    before = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        assert run("convert", folder, "-o", folder / name, "--force")[0] == 1
    (tmp_path / "there.gguf").symlink_to(folder / "config.json")
    assert run("convert", folder, "-o", tmp_path / "there.gguf", "--force")[0] == 1
    assert {name: (folder / name).read_bytes() for name in names} == before
    for _ in range(2):
        assert run("convert", folder, "-o", folder / "model.gguf")[0] == 0


def test_never_over_either_input_of_graft_pack_and_trim(
    folder: Path, converted: Convert, run: Run, tmp_path: Path
) -> None:
    target = tmp_path / "llama.gguf"
    assert run("convert", write_checkpoint(tmp_path / "llama", smollm()), "-o", target)[0] == 0
    heads = write_head_file(tmp_path / "heads.gguf", target, np.arange(64, dtype=np.int32))
    text = tmp_path / "text.gguf"
    text.write_text("words")
    plain = tmp_path / "plain.gguf"
    assert run("convert", folder, "--no-heads", "-o", plain)[0] == 0
    for out in (target, heads):
        assert run("pack", target, heads, "-o", out, "--force")[0] == 1
    for out in (target, heads, text):
        given = ("--ids", "32", "--text", text, "--force")
        assert "is read by this very command" in run("trim", heads, target, "-o", out, *given)[1]
    for out in (plain, folder / "config.json"):
        assert run("graft", plain, folder, "-o", out, "--force")[0] == 1


def test_a_folder_that_is_not_there_is_said_before_text_is_written(
    converted: Convert, run: Run, tmp_path: Path
) -> None:
    """Which would take hours."""
    target = converted("smollm")
    heads = write_head_file(tmp_path / "heads.gguf", target)
    out = tmp_path / "nowhere" / "x.gguf"
    tokens = ("--ids", "32", "--tokens", 1_000_000_000)
    line = f"error: {out.parent}: no such folder; name another file\n"
    assert run("trim", heads, target, "-o", out, *tokens) == (1, line)


def test_nothing_but_files(folder: Path, run: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    status, err = run("convert", folder, "-o", pipe, "--force")
    assert status == 1
    assert "not a regular file" in err
    assert run("convert", folder, "-o", tmp_path, "--force")[0] == 1
