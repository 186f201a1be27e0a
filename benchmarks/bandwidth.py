"""How fast this machine reads memory: the limit of a decode of one row, which reads every weight.

The reader is the C library's memchr for a byte that is not there. It reads every byte once, in
order, with the widest vectors the library knows, keeps nothing, and takes one comparison for 64
bytes, so that memory is what it waits for. As many threads read as many bytes as the decode it is
compared with, so that a cache keeps as much of a small model for both.
"""

from __future__ import annotations

import ctypes
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

_READS = 15  # the fastest counts: what disturbs a read makes it slower, never faster
_HELD, _ABSENT = 1, 0

Bytes = npt.NDArray[np.uint8]


def read_bytes_per_s(n_bytes: int, n_threads: int) -> float:
    """n_bytes: read once in each pass, by all threads together."""
    held = np.full(n_bytes, _HELD, np.uint8)  # written, so that each page is memory of its own
    parts = np.array_split(held, n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        seconds = [_pass_s(pool, parts) for _ in range(_READS)]
    return n_bytes / min(seconds)


def _pass_s(pool: ThreadPoolExecutor, parts: list[Bytes]) -> float:
    started = time.perf_counter()
    found = list(pool.map(_read, parts))
    elapsed_s = time.perf_counter() - started
    assert not any(found)
    return elapsed_s


def _read(part: Bytes) -> int | None:
    """memchr's result: None, since the byte is not there. Other threads run meanwhile."""
    found: int | None = _memchr()(part.ctypes.data, _ABSENT, part.nbytes)
    return found


@functools.cache
def _memchr() -> Any:
    function = ctypes.CDLL(None).memchr
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    function.restype = ctypes.c_void_p
    return function
