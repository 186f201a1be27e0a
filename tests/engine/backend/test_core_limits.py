"""Quotas and kinds of cores: files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from mtp_cli.engine.backend import cores
from mtp_cli.engine.backend.core_limits import granted_cores, performance_cores

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


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("case", CASES)
def test_the_quota(case: str, tmp_path: Path) -> None:
    own, files, granted = CASES[case]
    write(tmp_path, {"own": own} | {f"mounted/{name}": text for name, text in files.items()})
    assert granted_cores(tmp_path / "own", tmp_path / "mounted") == granted


def test_a_group_may_be_named_in_any_bytes(tmp_path: Path) -> None:
    group = tmp_path / "mounted" / os.fsdecode(b"caf\xe9")
    write(group, {"cpu.max": "100000 100000\n"})
    (tmp_path / "own").write_bytes(b"0::/caf\xe9\n")
    assert granted_cores(tmp_path / "own", tmp_path / "mounted") == 1


def test_without_control_groups(tmp_path: Path) -> None:
    assert granted_cores(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("granted", "threads"), [(0.5, 1), (1.9, 1), (2.0, 2), (64.0, 8)])
def test_threads_are_no_more_than_whole_cores(
    granted: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_usable", lambda: set(range(8)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8)
    monkeypatch.setattr(cores, "performance_cores", lambda usable: None)
    monkeypatch.setattr(cores, "granted_cores", lambda: granted)
    assert cores.physical_cores() == threads


SIX_AND_EIGHT = {  # an i7-12700H: 6 performance cores of two threads, 8 efficiency cores
    "cpu_core/cpus": "0-11\n",
    "cpu_atom/cpus": "12-19\n",
    **{
        f"system/cpu/cpu{cpu}/topology/core_cpus_list": f"{cpu - cpu % 2}-{cpu - cpu % 2 + 1}\n"
        for cpu in range(12)
    },
    **{f"system/cpu/cpu{cpu}/topology/core_cpus_list": f"{cpu}\n" for cpu in range(12, 20)},
}
OLDER = {name.replace("core_cpus", "thread_siblings"): text for name, text in SIX_AND_EIGHT.items()}
APART = {"cpu_core/cpus": "0,2-3\n"}  # without threads
KINDS = {
    "all": (SIX_AND_EIGHT, set(range(20)), 6),
    "an older kernel's names": (OLDER, set(range(20)), 6),
    "two of them": (SIX_AND_EIGHT, {0, 1, 2, 12, 13}, 2),
    "efficiency cores alone": (SIX_AND_EIGHT, set(range(12, 20)), None),
    "no threads": (APART, {0, 1, 2, 3}, 3),
    "all of a kind": ({}, set(range(8)), None),
}


@pytest.mark.parametrize("case", KINDS)
def test_performance_cores(case: str, tmp_path: Path) -> None:
    files, usable, expected = KINDS[case]
    write(tmp_path, files)
    assert performance_cores(usable, tmp_path) == expected


@pytest.mark.parametrize(("fast", "threads"), [(6, 6), (None, 14)])
def test_threads_are_for_performance_cores(
    fast: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_usable", lambda: set(range(20)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 20 if logical else 14)
    monkeypatch.setattr(cores, "performance_cores", lambda usable: fast)
    monkeypatch.setattr(cores, "granted_cores", lambda: None)
    assert cores.physical_cores() == threads
