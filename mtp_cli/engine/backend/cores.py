"""How many threads a decode has: as many as there are cores that no other program uses.

Threads wait for each other at every operation of a decode. One that shares its core with another
program keeps all of them waiting, and a decode with one thread fewer is faster. Where one is left,
a spare one that nobody waits for may help it (`backend/spare.py`). Pure but for the system's
clocks and its count of what runs; knows nothing of contexts.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from mtp_cli.engine.backend.core_limits import granted_cores, performance_cores
from mtp_cli.engine.tuning import TUNING

_TUNED = TUNING.cores
_LOAD = Path("/proc/loadavg")  # proc(5): the fourth field is tasks that run, of all there are


@dataclass(frozen=True)
class Usage:
    """Seconds since some moment in the past: of the clock, and of all cores' together that this
    process may use, those when they were idle and those when it computed; and this thread's own.
    """

    clock_s: float
    idle_s: float
    own_s: float
    thread_s: float


def usage() -> Usage:
    usable = _usable()
    cores = psutil.cpu_times(percpu=True)
    idle = (core.idle + getattr(core, "iowait", 0.0) for i, core in enumerate(cores) if i in usable)
    return Usage(time.monotonic(), sum(idle), time.process_time(), time.thread_time())


def free_now() -> int | None:
    """Cores that no other program wants at this moment; None where the system does not say. Linux
    counts what runs, and on the whole machine only.
    """
    n_cores = len(_usable())
    if n_cores != psutil.cpu_count():
        return None
    n_others = _running_others()
    for _ in range(_TUNED.n_recounts):
        if not n_others:
            break
        time.sleep(_TUNED.recount_s)
        n_others = min(n_others, _running_others() or 0)
    return None if n_others is None else max(0, n_cores - n_others)


def _running_others() -> int | None:
    """Tasks that have a core or wait for one, this one aside."""
    try:
        n_running, _, _ = _LOAD.read_text().split()[3].partition("/")
        return int(n_running) - 1
    except (OSError, ValueError, IndexError):
        return None


@functools.cache
def _usable() -> set[int]:
    """As at first: to move a thread, a spare one narrows its cores for a moment."""
    try:
        return set(psutil.Process().cpu_affinity() or [])
    except (AttributeError, psutil.Error):  # macOS has no affinity
        return set(range(psutil.cpu_count() or 1))


def physical_cores() -> int:
    """Cores this process may use, without hyper-threads and efficiency cores: those slow llama.cpp
    down. A container's quota counts in whole cores.
    """
    n_usable = len(_usable()) or 1
    n_physical = performance_cores(_usable()) or psutil.cpu_count(logical=False) or n_usable
    granted = granted_cores()
    n_granted = n_usable if granted is None else int(granted)
    return max(1, min(n_physical, n_usable, n_granted))


class FreeCores:
    """Looks at the machine while decodes run, and tells its followers how many threads to use, and
    whether a spare one besides.

    n_most:  threads on an idle machine; with one there is nothing to decide
    read:    what the system says that was used
    free:    cores that others leave now, which is asked when nothing is known of the last second
    every_s: seconds between looks
    """

    def __init__(
        self,
        n_most: int,
        read: Callable[[], Usage] = usage,
        free: Callable[[], int | None] = free_now,
        *,
        every_s: float = _TUNED.look_every_s,
    ) -> None:
        self.n_threads = n_most
        self._n_most = n_most
        self._read, self._free, self._every_s = read, free, every_s
        self._remembered_s = (_TUNED.n_looks + 1) * every_s
        self._followers: list[Callable[[int], None]] = []
        self._spares: list[Callable[[bool], None]] = []
        self._has_spare = False
        self._next_s = -1.0
        self._seen: list[Usage] = []

    def follow(self, use: Callable[[int], None]) -> None:
        """Call `use` with the number of threads whenever it changes."""
        self._followers.append(use)

    def follow_spare(self, use: Callable[[bool], None]) -> None:
        """Call `use` whenever a spare thread begins to be worth having, or ends to be."""
        self._spares.append(use)

    def look(self, clock_s: float | None = None) -> None:
        """To be called before each decode; does nothing most times.

        clock_s: `time.monotonic()` now, unless told
        """
        if self._n_most == 1:
            return
        now_s = time.monotonic() if clock_s is None else clock_s
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        now = self._read()
        before = self._known(now)
        self._seen = [*before, now]
        if before:
            self._use_spare(self._use(self._wanted()))
        else:
            self._begin()

    def _known(self, now: Usage) -> list[Usage]:
        """What was seen before and says something of now: not what others did between answers."""
        recent = [seen for seen in self._seen if now.clock_s - seen.clock_s < self._remembered_s]
        if recent or not self._seen:
            return recent[-_TUNED.n_looks :]
        last = self._seen[-1]  # a decode so long, or a pause
        is_decode = now.own_s - last.own_s > _TUNED.own_share * (now.clock_s - last.clock_s)
        return [last] if is_decode else []

    def _begin(self) -> None:
        """A decode that waits for a core which another program has takes seconds on all threads:
        too long to find out while it runs.
        """
        n_free = self._free()
        if n_free is None:
            return
        self._use(self._most_of(n_free))
        self._tell_spare(self.n_threads == 1 and n_free > 0)

    def _wanted(self) -> int:
        first, last = self._seen[0], self._seen[-1]
        passed_s = last.clock_s - first.clock_s
        if passed_s <= 0:
            return self.n_threads
        n_free = (last.idle_s - first.idle_s + last.own_s - first.own_s) / passed_s
        return self._most_of(n_free + _TUNED.missing)

    def _most_of(self, n_free: float) -> int:
        return max(1, min(self._n_most, int(n_free)))

    def _use(self, n_threads: int) -> bool:
        """Whether that is another number than before."""
        if n_threads == self.n_threads:
            return False
        self.n_threads = n_threads
        for use in self._followers:
            use(n_threads)
        return True

    def _use_spare(self, is_new: bool) -> None:
        """is_new: the number of threads changed just now, so that nothing is known of the only
        one's core.
        """
        self._tell_spare(self.n_threads == 1 and (is_new or self._has_own_core()))

    def _tell_spare(self, has_spare: bool) -> None:
        if has_spare != self._has_spare:
            self._has_spare = has_spare
            for use in self._spares:
                use(has_spare)

    def _has_own_core(self) -> bool:
        before, now = self._seen[-2:]
        return now.thread_s - before.thread_s > _TUNED.own_core * (now.clock_s - before.clock_s)
