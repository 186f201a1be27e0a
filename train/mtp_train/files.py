"""A run's files: whole or not at all, and one line where the disk refuses. Knows no format."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mtp_cli.errors import MtpError

UNFINISHED = ".partial"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes `path`: MtpError where the system says no."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MtpError(
                f"{path}: the disk is full; make room and run the same line again, which goes on "
                "from what is there"
            ) from error
        raise MtpError(f"{path}: cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write to; what is there at the end becomes `path`, and an error leaves nothing.

    What a killed process leaves, `remove_abandoned` removes: nobody holds its lock.
    """
    partial = path.with_name(path.name + UNFINISHED)
    with writing(path):
        try:
            with partial.open("wb") as file:
                _try_lock(file)
                yield partial
                os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def check_free(path: Path, n_bytes: int) -> None:
    """That the disk of a file to be written has so much room."""
    free = shutil.disk_usage(path.absolute().parent).free
    if n_bytes > free:
        raise MtpError(
            f"{path}: needs about {n_bytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} free; make "
            "room, or name a file on another with --output"
        )


def remove_abandoned(folder: Path) -> None:
    """Unfinished files whose process was killed."""
    for path in folder.glob(f"*{UNFINISHED}"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if _try_lock(file):
                path.unlink()


def _try_lock(file: BinaryIO) -> bool:
    """Lock a file for as long as it is open; False if another holds it, or nothing can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
