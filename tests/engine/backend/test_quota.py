"""How many cores a container is granted: files as the kernel writes them, of both versions."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from mtp_cli.engine.backend import cores
from mtp_cli.engine.backend.quota import granted_cores

CASES = {
    "version 2, in a container": ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
    "version 2, no quota": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "version 2, half a core": ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
    "version 2, the group's own": ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, of one around it": (
        "0::/a/b\n",
        {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"},
        3.0,
    ),
    "version 2, the least": (
        "0::/a/b\n",
        {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "800000 100000\n"},
        1.0,
    ),
    "version 2, path of the machine outside": (
        "0::/system.slice/docker-1f.scope\n",
        {"cpu.max": "400000 100000\n"},
        4.0,
    ),
    "version 1": (
        "3:memory:/\n2:cpu,cpuacct:/docker/1f\n",
        {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "version 1, no quota": (
        "1:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "version 1, another controller": (
        "1:cpuset:/\n",
        {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "a name with a colon": ("0::/a:b\n", {"a:b/cpu.max": "100000 50000\n"}, 2.0),
    "no controller": ("0::/\n", {}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_quota(case: str, tmp_path: Path) -> None:
    own, files, granted = CASES[case]
    for name, text in {
        "own": own,
        **{f"mounted/{name}": text for name, text in files.items()},
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert granted_cores(tmp_path / "own", tmp_path / "mounted") == granted


def test_without_control_groups(tmp_path: Path) -> None:
    assert granted_cores(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("granted", "threads"), [(0.5, 1), (1.9, 1), (2.0, 2), (64.0, 8)])
def test_threads_are_no_more_than_whole_cores(
    granted: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_usable", lambda: set(range(8)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8)
    monkeypatch.setattr(cores, "granted_cores", lambda: granted)
    assert cores.physical_cores() == threads
