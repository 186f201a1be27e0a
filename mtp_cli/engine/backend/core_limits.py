"""What keeps a process on Linux from using all cores that it sees, or from gaining by it.

A container's CPU quota (control groups): one that may use two of 64 cores sees all 64. Threads
beyond it do not help: once the time of a period (100 ms) is spent, all stand still until the next.

Efficiency cores, beside performance cores in Intel's processors from Alder Lake on: threads wait
for each other at every operation, and so for the slowest. llama.cpp leaves them out likewise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_OWN = Path("/proc/self/cgroup")  # cgroups(7): "hierarchy:controllers:path", a line each
_MOUNTED = Path("/sys/fs/cgroup")
_DEVICES = Path("/sys/devices")


def performance_cores(usable: set[int], devices: Path = _DEVICES) -> int | None:
    """How many of them `usable`, the ids of logical CPUs, are on; None where cores are all of a
    kind, or only efficiency cores are usable.
    """
    fast = usable & _ids(_read(devices / "cpu_core/cpus"))
    return len({_core_of(cpu, devices) for cpu in fast}) or None


def _core_of(cpu: int, devices: Path) -> frozenset[int]:
    """The logical CPUs of a core."""
    topology = devices / f"system/cpu/cpu{cpu}/topology"
    listed = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
    return frozenset(_ids(listed) or {cpu})


def _ids(ranges: str) -> set[int]:
    """Those that the kernel lists as "0-3,8,10-11"."""
    spans = (part.partition("-") for part in ranges.strip().split(",") if part)
    return {cpu for first, _, last in spans for cpu in range(int(first), int(last or first) + 1)}


def granted_cores(own: Path = _OWN, mounted: Path = _MOUNTED) -> float | None:
    """The least of the quotas of the group that this process is in and of those around it, in
    cores; None where there is none, or no control groups.

    own:     which group this process is in, of each hierarchy
    mounted: where version 2 is mounted, or the hierarchies of version 1 are
    """
    return min(_quotas(own, mounted), default=None)


def _quotas(own: Path, mounted: Path) -> Iterator[float]:
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _groups(mounted, path):
                yield from _cores(_read(group / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for group in _groups(mounted / "cpu", path):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                yield from _cores([_read(group / name).strip() for name in names])


def _groups(mounted: Path, path: str) -> Iterator[Path]:
    """A group and those around it. Inside a container the path may be that of the machine outside;
    what is mounted is then the container's own group."""
    group = mounted / path.lstrip("/")
    yield group
    while group != mounted:
        group = group.parent
        yield group


def _cores(quota_and_period: list[str]) -> Iterator[float]:
    """Nothing for "max" and -1, which are no quota, and where a file is missing."""
    try:
        quota, period = map(int, quota_and_period)
    except ValueError:
        return
    if quota > 0 and period > 0:
        yield quota / period


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")  # a path may be any bytes
    except OSError:
        return ""
