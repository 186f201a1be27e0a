"""How many threads a decode has: as many as there are cores that no other program uses.

Threads wait for each other at every operation of a decode. One that shares its core with another
program keeps all of them waiting, and a decode with one thread fewer is faster. Where one is left,
a spare one that nobody waits for may help it (`backend/spare.py`). Pure but for the system's
clocks; knows nothing of contexts.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from mtp_cli.engine.tuning import TUNING

_TUNED = TUNING.cores


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


@functools.cache
def _usable() -> set[int]:
    """As at first: to move a thread, a spare one narrows its cores for a moment."""
    try:
        return set(psutil.Process().cpu_affinity() or [])
    except (AttributeError, psutil.Error):  # macOS has no affinity
        return set(range(psutil.cpu_count() or 1))


def physical_cores() -> int:
    """Cores this process may use, without hyper-threads: those slow llama.cpp down."""
    n_usable = len(_usable()) or 1
    return max(1, min(psutil.cpu_count(logical=False) or n_usable, n_usable))


class FreeCores:
    """Looks at the machine while decodes run, and tells its followers how many threads to use, and
    whether a spare one besides.

    n_most:  threads on an idle machine; with one there is nothing to decide
    every_s: seconds between looks
    read:    what the system says now
    """

    def __init__(
        self,
        n_most: int,
        read: Callable[[], Usage] = usage,
        *,
        every_s: float = _TUNED.look_every_s,
    ) -> None:
        self.n_threads = n_most
        self._n_most = n_most
        self._read, self._every_s = read, every_s
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
        # What others did between two answers says nothing of now.
        now = self._read()
        recent = [seen for seen in self._seen if now.clock_s - seen.clock_s < self._remembered_s]
        self._seen = [*recent[-_TUNED.n_looks :], now]
        self._use_spare(self._use(self._wanted()))

    def _wanted(self) -> int:
        first, last = self._seen[0], self._seen[-1]
        passed_s = last.clock_s - first.clock_s
        if passed_s <= 0:
            return self.n_threads
        n_free = (last.idle_s - first.idle_s + last.own_s - first.own_s) / passed_s
        return max(1, min(self._n_most, int(n_free + _TUNED.missing)))

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
        has_spare = self.n_threads == 1 and (is_new or self._has_own_core())
        if has_spare != self._has_spare:
            self._has_spare = has_spare
            for use in self._spares:
                use(has_spare)

    def _has_own_core(self) -> bool:
        if len(self._seen) < 2:  # the first decode after a pause
            return self._has_spare
        before, now = self._seen[-2:]
        return now.thread_s - before.thread_s > _TUNED.own_core * (now.clock_s - before.clock_s)
