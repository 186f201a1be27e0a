"""`mtp-convert inspect --memory`, by a path and by a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_cli.engine.backend.cache import CacheTypes
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.memory import estimate
from mtp_convert.commands.build import Options
from tests.convert.conftest import FAMILIES, Convert
from tests.engine.files.test_memory import MIB, ROUNDED, allocated


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


def test_cache_and_state_of_every_family(converted: Convert) -> None:
    paths = [converted(family, Options(outtype="q8_0")) for family in FAMILIES]
    for path, real in zip(paths, allocated(512, CacheTypes(), *paths), strict=True):
        needed = estimate(read_shards(path), n_ctx=512)
        assert needed.cache / MIB == pytest.approx(real["cache"], abs=2 * ROUNDED), path.name
        assert needed.state / MIB == pytest.approx(real["state"], abs=2 * ROUNDED), path.name
