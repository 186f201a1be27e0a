"""The options of devices, adapters and rope, on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine import tiny

ROOT = Path(__file__).parent.parent
COMMANDS = ["mtp_cli.chat.cli", "mtp_cli.serve.cli", "mtp_cli.bench.cli"]


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
        (("--rpc", "here"), "'here' is no HOST:PORT, as 192.168.1.5:50052"),
        (("--rpc", "a:1,b:0"), "'b:0' is no HOST:PORT"),
        (("--rpc", "a:70000"), "'a:70000' is no HOST:PORT"),
        (("--rpc", "::1:1"), "'::1:1' is no HOST:PORT"),
        (("--rpc", "a:1,b:1,a:1"), "a:1 is named twice"),
        (("--rpc", ",".join(f"a:{n}" for n in range(1, 18))), "17 servers, and at most 16"),
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


def test_no_device_leaves_servers_nothing_to_do() -> None:
    done = run(COMMANDS[0], "--rpc", "127.0.0.1:1", "--device", "none", "hi")
    assert done.returncode == 1
    assert "--rpc and --device none exclude one another; leave one out" in done.stderr


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
