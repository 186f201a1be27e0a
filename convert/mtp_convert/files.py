"""Bounded reads from files, with errors that name the file and the tensor. Knows no format."""

from __future__ import annotations

import os
from pathlib import Path

from mtp_cli.errors import MtpError


def read_range(path: Path, what: str, begin: int, n_bytes: int) -> bytes:
    """n_bytes of a file from byte `begin` on; MtpError when it is shorter, or unreadable."""
    try:
        with path.open("rb", buffering=0) as file:
            found = os.pread(file.fileno(), n_bytes, begin)
            while len(found) < n_bytes:  # one read returns at most 2 GiB
                more = os.pread(file.fileno(), n_bytes - len(found), begin + len(found))
                if not more:
                    raise MtpError(f"{path}: {what}: the file ends too early")
                found += more
            return found
    except OSError as error:
        raise MtpError(f"{path}: {what}: {error.strerror}") from error
