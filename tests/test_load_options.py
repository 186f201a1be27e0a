"""The options of devices, adapters and rope, on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine import tiny

ROOT = Path(__file__).parent.parent
COMMANDS = ["mtp_cli.chat.cli", "mtp_cli.serve.cli"]


def run(module: str, *args: str) -> subprocess.CompletedProcess[str]:
    code = f"from {module} import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--override-tensor", "exps"), "no PATTERN=BUFFER"),
        (("--override-tensor", "(=CPU"), "is no pattern"),
        (("--tensor-split", "a,b"), "expected shares as 3,1"),
        (("--tensor-split", "0,0"), "expected shares as 3,1"),
        (("--rope-scaling", "twice"), "none of none, linear, yarn"),
        (("--rope-scale", "0"), "greater than or equal to"),
        (("--n-cpu-moe", "-1"), "greater than or equal to 0"),
    ],
)
def test_wrong_usage_is_said(module: str, args: tuple[str, ...], said: str) -> None:
    done = run(module, *args)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_what_excludes_one_another_is_said() -> None:
    done = run(COMMANDS[0], "--rope-scale", "2", "--rope-freq-scale", "0.5", "hi")
    assert done.returncode == 1
    assert "--rope-scale and --rope-freq-scale say the same" in done.stderr


@pytest.mark.parametrize("name", ["no such.gguf", "no=such.gguf", "no such.gguf=0.5"])
def test_an_adapter_that_is_no_file_is_said(name: str) -> None:
    done = run(COMMANDS[0], "--lora", name, "hi")
    assert done.returncode == 1
    assert f"error: {name.removesuffix('=0.5')}: " in done.stderr


def test_they_reach_the_model(tmp_path: Path) -> None:
    model = tiny.llama().write(tmp_path / "m.gguf")
    given = ("-m", str(model), "--raw", "-t", "0", "-n", "20", "--quiet", "the thing")
    plain = run(COMMANDS[0], *given)
    scaled = run(COMMANDS[0], *given, "--rope-scale", "4")
    same = run(COMMANDS[0], *given, "--rope-freq-scale", "0.25")
    assert plain.returncode == scaled.returncode == 0
    assert plain.stdout != scaled.stdout
    assert scaled.stdout == same.stdout
    assert run(COMMANDS[0], *given, "--cpu-moe", "--device", "none").stdout == plain.stdout
