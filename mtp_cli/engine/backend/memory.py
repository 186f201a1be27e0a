"""Keeps what llama.cpp allocates within the memory there is. Knows nothing of what it is for.

Linux promises more memory than it has, and kills who uses all of it: a context too large for the
machine would end this process, or another one, where an allocation that fails is an error.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Inside, what does not fit into memory and swap that are free now cannot be allocated."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    limit = psutil.Process().memory_info().data + free
    limits = [limit, *(n for n in (soft, hard) if n != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
