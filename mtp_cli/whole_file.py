"""Writes a text file whole or not at all. Knows nothing of what is in it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str, *, is_durable: bool) -> None:
    """By way of a temporary file beside `path`, which no error leaves behind; OSError where it
    cannot be written, with what was there before untouched.

    is_durable: it survives a power cut; without, it is written sooner
    """
    # Its name owes nothing to `path`'s: with more letters that might be too long a name.
    fd, temporary = tempfile.mkstemp(prefix=".mtp-", dir=path.parent)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            if is_durable:
                file.flush()
                os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
