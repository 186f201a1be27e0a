"""A disk that is full, for what writes to it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def no_room(n_bytes: int = 10) -> Iterator[None]:
    """Inside, the system lets no file of this process grow beyond so many bytes.

    Python ignores the signal that comes with it (SIGXFSZ), so that writing fails as on a full disk.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
