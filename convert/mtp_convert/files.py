"""Bounded reads from files, with errors that name the file and the tensor. Knows no format."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtp_cli.errors import MtpError, missing_key

# What Python raises for values of another type, size or depth than the code that reads them takes.
_OF_VALUES = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError,
              struct.error)  # fmt: skip


@contextmanager
def reading_values(where: str) -> Iterator[None]:
    """Around the reading of a JSON file's values: what does not fit is the file's fault.

    where: the file or folder that the MtpError names
    """
    try:
        yield
    except _OF_VALUES as error:
        raise MtpError(
            f"{where}: holds a value of an unexpected kind{missing_key(error)}"
        ) from error


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
