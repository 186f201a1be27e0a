"""The command line as scripts see it: plans on stdout, the rest on stderr, exit 0, 1 or 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from gguf import GGUFReader

from mtp_convert.commands.build import Options
from tests.convert.conftest import Convert
from tests.convert.heads import write_head_file

Folder = Callable[[str], Path]
COMMANDS = ["convert", "graft", "pack", "extract", "strip", "trim", "check", "inspect"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mtp_convert.cli", *map(str, arguments)]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_convert_writes_a_file_and_says_so_on_stderr(checkpoint: Folder, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    done = run("convert", checkpoint("qwen35"), "-o", out, "--outtype", "q4_0")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{out}: qwen35, 70 tensors" in done.stderr
    kinds = {t.tensor_type.name for t in GGUFReader(out).tensors}
    assert kinds == {"F32", "Q4_0", "Q8_0"}  # the heads, and the output: Q6_K rows do not fit


def test_a_dry_run_prints_the_plan_and_writes_nothing(checkpoint: Folder, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    planned = run("convert", checkpoint("qwen35"), "-o", out, "--dry-run", "--outtype", "f32")
    assert planned.returncode == 0
    assert not out.exists()
    run("convert", checkpoint("qwen35"), "-o", out, "--outtype", "f32")
    for tensor in GGUFReader(out).tensors:
        shape = " x ".join(str(n) for n in reversed(tensor.shape.tolist()))
        (line,) = [x for x in planned.stdout.splitlines() if x.startswith(tensor.name + " ")]
        assert tensor.tensor_type.name in line
        assert line.endswith(f"  {shape}")


def on_terminal(*arguments: str | Path) -> str:
    """All that a terminal is shown, without what moves its cursor."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "mtp_convert.cli", *map(str, arguments)],
        dimensions=(24, 120),
        encoding="utf-8",
        timeout=120,
    )
    shown = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", child.read())
    child.close()
    assert child.exitstatus == 0, shown
    return shown


def test_a_terminal_sees_a_bar_with_bytes_and_time_left(checkpoint: Folder, tmp_path: Path) -> None:
    shown = on_terminal("convert", checkpoint("qwen35"), "-o", tmp_path / "x.gguf")
    assert re.search(r"x\.gguf .*\d/\d+\.\d kB .*\d:\d\d:\d\d", shown)


def test_an_error_is_one_line_and_exit_1(tmp_path: Path) -> None:
    done = run("convert", tmp_path / "nowhere", "-o", tmp_path / "x.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path}/nowhere: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["explode"],
        ["convert"],
        ["convert", "x"],
        ["convert", "x", "-o", "y", "--outtype", "q9_9"],
        ["convert", "x", "-o", "y", "--heads-only", "--no-heads"],
        ["trim", "x", "y", "-o", "z", "--ids", "0"],
        ["inspect", "x", "--ctx", "512"],
        ["inspect", "x", "--cache-type-k", "q8_0"],
    ],
)
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_heads_go_out_and_in_again(converted: Convert, checkpoint: Folder, tmp_path: Path) -> None:
    whole = converted("glm4moe", Options(outtype="q8_0"))
    heads, target, again = (tmp_path / name for name in ("h.gguf", "t.gguf", "again.gguf"))
    assert run("extract", whole, "-o", heads).returncode == 0
    assert run("strip", whole, "-o", target).returncode == 0
    done = run("graft", target, checkpoint("glm4moe"), "-o", again)
    assert (done.returncode, done.stdout) == (0, "")
    wanted = {t.name: t.data.tobytes() for t in GGUFReader(whole).tensors}
    assert {t.name: t.data.tobytes() for t in GGUFReader(again).tensors} == wanted
    done = run("check", target, "--heads", heads)
    assert done.returncode == 0
    assert "position 1:" in done.stdout
    assert "look mis-loaded" in done.stdout  # random heads know nothing
    done = run("inspect", heads)
    assert "GGUF head file, architecture glm4moe" in done.stdout


def test_pack_and_trim_by_command(converted: Convert, tmp_path: Path) -> None:
    target = converted("smollm", Options(outtype="q8_0"))
    heads = write_head_file(tmp_path / "heads.gguf", target)
    assert run("pack", target, heads, "-o", tmp_path / "packed.gguf").returncode == 0
    assert "heads: 1 (reused)" in run("inspect", tmp_path / "packed.gguf").stdout
    text = tmp_path / "text.txt"
    text.write_text("the water in the thin thing " * 20)
    out = tmp_path / "trimmed.gguf"
    done = run("trim", heads, target, "-o", out, "--ids", "40", "--text", text)
    assert done.returncode == 0, done.stderr
    assert "40 of 320 ids cover 100.00% of text held out" in done.stderr
    assert "acceptance by position after:" in done.stderr
    done = run("trim", heads, target, "-o", out, "--ids", "40", "--tokens", "600", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "output.weight" in done.stdout


def test_text_is_counted_while_it_is_written(converted: Convert, tmp_path: Path) -> None:
    target = converted("smollm", Options(outtype="q8_0"))
    heads = write_head_file(tmp_path / "heads.gguf", target)
    out = tmp_path / "trimmed.gguf"
    shown = on_terminal(
        "trim", heads, target, "-o", out, "--ids", "40", "--tokens", "600", "--dry-run"
    )
    assert re.search(r"writing text .*600/600", shown)


def test_check_without_heads_names_what_adds_them(converted: Convert) -> None:
    done = run("check", converted("llama"))
    assert done.returncode == 1
    assert "mtp-convert graft or pack adds them" in done.stderr


def test_converting_imports_neither_pytorch_nor_llama_cpp() -> None:
    script = (
        "import sys, mtp_convert.cli\n"
        "print({'torch', 'transformers', 'llama_cpp', 'mtp_cli.engine'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n"
