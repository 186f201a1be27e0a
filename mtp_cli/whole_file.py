"""Writes a file whole or not at all, and tries beforehand whether it can.

Knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mtp_cli.errors import MtpError

TEMPORARY = ".mtp-"  # how names of files begin that are not whole yet


def check_place(path: Path) -> None:
    """MtpError where no file could be written to `path`: before an hour's work, not after.

    By trying it beside the path, since permissions do not tell all.
    """
    folder = path.absolute().parent
    try:
        if path.is_dir():
            raise MtpError(f"{path}: is a folder; name another file")
        if path.exists() and not path.is_file():
            raise MtpError(f"{path}: not a regular file; name another")
        if not folder.is_dir():
            raise MtpError(f"{folder}: no such folder; name another file")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MtpError(f"{path}: cannot be written: {error.strerror}; name another file") from error


def write_whole(path: Path, text: str, *, is_durable: bool) -> None:
    """By way of a temporary file beside `path`, which no error leaves behind; OSError where it
    cannot be written, with what was there before untouched.

    is_durable: it survives a power cut; without, it is written sooner
    """
    with _whole(path) as file:
        file.write(text.encode())
        if is_durable:
            file.flush()
            os.fsync(file.fileno())


def write_whole_bytes(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """The same for parts that are written one after another; a power cut may lose it."""
    with _whole(path) as file:
        for part in parts:
            file.write(part)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    # Its name owes nothing to `path`'s: with more letters that might be too long a name.
    fd, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with open(fd, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
