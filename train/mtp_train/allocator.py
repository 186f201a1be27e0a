"""Keeps freed memory in the process, so that a training step need not have it zeroed anew.

glibc maps every block above 32 MiB on its own and gives it back to the system once freed; a step
that makes tens of tensors of that size spends a tenth of its time in page faults. Only glibc has
these settings; other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes

# mallopt(3)'s parameters, and 2 GiB less a byte, the most that it takes.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_MOST = 2**31 - 1
_GROWTH = 256 * 2**20  # bytes the heap grows by at once


def keep_freed_memory() -> bool:
    """Whether the C library took the settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have none, Windows no such handle
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, _GROWTH))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
