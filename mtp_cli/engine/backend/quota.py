"""How many cores' worth of time this process is granted: the CPU quota of Linux's control groups.

A container that may use two of 64 cores sees all 64. Threads beyond its quota do not help: once the
time of a period (100 ms) is spent, all of them stand still until the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_OWN = Path("/proc/self/cgroup")  # cgroups(7): "hierarchy:controllers:path", a line each
_MOUNTED = Path("/sys/fs/cgroup")


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
    """None for "max" and -1, which are no quota, and where a file is missing."""
    try:
        quota, period = map(int, quota_and_period)
    except ValueError:
        return
    if quota > 0 and period > 0:
        yield quota / period


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
