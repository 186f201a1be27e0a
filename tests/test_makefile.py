"""`make chat`: the terminal belongs to the conversation, Ctrl-C included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pexpect

ROOT = Path(__file__).parent.parent
# Like mtp-chat: an interrupt is answered, not obeyed.
_CHAT = """#!/bin/sh
trap 'echo stopped' INT
echo ready
read line || read line
echo "said $line"
"""
# Writes down what it is asked for, and says of RPC what the file `rpc` says.
_PYTHON = """#!/bin/sh
case "$*" in *supports_rpc*) exit "$(cat rpc)";; esac
echo "$CMAKE_ARGS $*" >>asked
case "$*" in *force-reinstall*) echo 0 >rpc;; esac
"""


def installed(folder: Path, rpc: int) -> list[str]:
    """What `make install` asks pip for, where llama.cpp has RPC (0) or not (1) after the first."""
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    (folder / "rpc").write_text(str(rpc))
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        (folder / name).touch()
    command = ["make", "-f", str(ROOT / "Makefile"), f"VENV={folder}", f"PYTHON={sys.executable}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    subprocess.run(
        [*command, "install"], cwd=folder, env={**environment, "CMAKE_ARGS": "-DGGML_CUDA=on"},
        check=True, capture_output=True,
    )  # fmt: skip
    assert (folder / ".installed").exists()
    return (folder / "asked").read_text().splitlines()


def test_llama_cpp_is_compiled_with_rpc_and_what_the_user_wants(tmp_path: Path) -> None:
    (asked,) = installed(tmp_path, rpc=0)
    assert asked.startswith("-DGGML_RPC=on -DGGML_CUDA=on -m pip install ")


def test_one_that_pip_kept_without_rpc_is_compiled_again(tmp_path: Path) -> None:
    _first, forgotten, again = installed(tmp_path, rpc=1)
    assert forgotten.endswith("-m pip cache remove -qq llama_cpp_python")
    assert again.startswith("-DGGML_RPC=on -DGGML_CUDA=on -m pip install ")
    assert again.endswith("--no-binary llama-cpp-python llama-cpp-python")


def test_an_interrupt_reaches_the_conversation_and_not_make(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    chat = tmp_path / "bin" / "mtp-chat"
    chat.write_text(_CHAT)
    chat.chmod(0o755)
    (tmp_path / ".installed").touch()
    command = ["--no-print-directory", "chat", f"VENV={tmp_path}", f"PYTHON={sys.executable}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    make = pexpect.spawn(
        "make", command, cwd=str(ROOT), env=environment, encoding="utf-8", timeout=20
    )
    make.expect_exact("ready")
    make.sendintr()
    make.expect_exact("stopped")
    make.sendline("hello")
    make.expect_exact("said hello")
    rest = make.read()
    make.close()
    assert "***" not in rest
    assert make.exitstatus == 0
