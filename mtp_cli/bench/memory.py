"""How much memory this process has had."""

from __future__ import annotations

import platform


def peak_memory() -> int:
    """The most bytes this process has had in memory."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else 1024 * peak
