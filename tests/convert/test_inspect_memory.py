"""`mtp-convert inspect --memory`, by a path and by a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.convert.conftest import Convert


def inspect(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from mtp_convert.cli import main; main()", "inspect", *arguments],
        env={**os.environ, "MTP_MODELS": str(folder), "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_a_ggufs_memory_is_told_in_parts(tmp_path: Path, converted: Convert) -> None:
    path = converted("llama")
    done = inspect(path.parent, "--memory", "--ctx", "512", path.stem)
    assert (done.returncode, done.stderr) == (0, "")
    memory, machine = done.stdout.splitlines()[-2:]
    assert memory.startswith("memory: about ")
    assert "weights 5" in memory
    assert "context of 512 tokens" in memory
    assert machine.startswith("this machine: ")
    assert machine.endswith(" free: it fits")
    large = inspect(path.parent, "--memory", "--ctx", str(2**31 - 1), str(path)).stdout
    assert "warning: " in large
    assert "it cannot be held" in large
    smaller = ("--cache-type-k", "q4_0")
    small = inspect(path.parent, "--memory", "--ctx", str(2**31 - 1), *smaller, str(path))
    assert small.stdout != large


def test_a_checkpoint_has_to_be_converted_before(tmp_path: Path) -> None:
    done = inspect(tmp_path, "--memory", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
