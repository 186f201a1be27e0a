"""Work done ahead of its use, in threads, with its results in order. Knows nothing of the work.

numpy, ggml and reads all release Python's lock, so that blocks of a tensor are encoded on every
core while earlier ones are written. A few blocks are alive at a time, whatever there are in all.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

MAX_THREADS = 8


def n_threads() -> int:
    """Cores this process may use, no more than pay."""
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_THREADS, len(os.sched_getaffinity(0)))
    return min(MAX_THREADS, os.cpu_count() or 1)


def in_order(jobs: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """Each job's result in the order of the jobs; an error comes in its job's place."""
    width = n_threads()
    pool = ThreadPoolExecutor(width)
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > width:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
