"""Writes a plan: streamed, verified, and visible only when complete.

Owns the temporary file beside the destination, which an error or an interruption removes. What
cannot be caught (SIGKILL, a power cut) leaves it; the next run for that destination removes it, and
knows it by its lock, which only a running process holds. Knows nothing of checkpoints or families.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mtp_cli.errors import MtpError
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.plan import Plan, PlannedTensor

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)
READ_BYTES = 1 << 24
_MB = 1_000_000
_MORE_ROOM = "make room, or name a file on another disk with --output"


def write(plan: Plan, out: Path, progress: Progress = lambda done, total: None) -> None:
    """Write `plan` to `out`, which appears only by rename, after it was read back."""
    done = 0

    def counted(n_bytes: int, total: int) -> None:
        nonlocal done
        done = n_bytes
        progress(n_bytes, total)

    try:
        with _temporary(out) as path:
            free = shutil.disk_usage(path.parent).free
            if plan.n_bytes > free:
                raise MtpError(
                    f"{out}: needs {_mb(plan.n_bytes)} MB, the disk has {free // _MB} MB free; "
                    f"{_MORE_ROOM}"
                )
            with path.open("wb") as file:
                sums = list(_stream(plan, file, counted))
                file.flush()
                os.fsync(file.fileno())
            _verify(plan, path, sums)
            path.replace(out)
            _sync_folder(out.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MtpError(
                f"{out}: the disk is full; the file needs {_mb(plan.n_bytes)} MB, of which "
                f"{done // _MB} were written; {_MORE_ROOM}"
            ) from error
        raise MtpError(f"{out}: cannot be written: {error.strerror}") from error


def _mb(n_bytes: int) -> int:
    return -(-n_bytes // _MB)


@contextmanager
def _temporary(out: Path) -> Iterator[Path]:
    if os.path.isdir(out):  # unlike Path.is_dir it takes an unreadable folder for none
        raise MtpError(f"{out}: is a folder; expected a file name")
    _remove_abandoned(out)
    path = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with path.open("xb") as lock:
        try:
            _try_lock(lock)
            yield path
        finally:
            path.unlink(missing_ok=True)


def _remove_abandoned(out: Path) -> None:
    """Temporary files of this destination whose process is gone."""
    name = re.compile(re.escape(f".{out.name}.") + r"\d+\.tmp")
    with suppress(OSError):  # whatever stands in the way, writing will say
        for path in [path for path in out.parent.iterdir() if name.fullmatch(path.name)]:
            with path.open("rb") as file:
                if _try_lock(file):
                    path.unlink()


def _try_lock(file: BinaryIO) -> bool:
    """Lock a file for as long as it is open; False if another holds it, or nothing can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _stream(plan: Plan, file: BinaryIO, progress: Progress) -> Iterator[int]:
    """Write header and tensors; yields the checksum of each tensor."""
    total, done = plan.n_bytes, file.write(plan.header())
    for tensor in plan.tensors:
        checksum, n_bytes = 0, 0
        for block in tensor.blocks():
            checksum = zlib.crc32(block, checksum)
            n_bytes += file.write(block)
            progress(done + n_bytes, total)
        if n_bytes != tensor.n_bytes:
            raise RuntimeError(f"{tensor.name}: planned {tensor.n_bytes} bytes, made {n_bytes}")
        done += n_bytes + file.write(bytes(-n_bytes % plan.alignment))
        progress(done, total)
        yield checksum


def _verify(plan: Plan, path: Path, sums: list[int]) -> None:
    """Read the file back from the disk: header as planned, every tensor's bytes as written."""
    found = read_gguf(path)
    if dict(found.pairs) != dict(plan.metadata):
        raise MtpError(f"{path}: the metadata read back differs from what was written")
    for tensor, checksum in zip(plan.tensors, sums, strict=True):
        placed = found.tensors[tensor.name]
        if (placed.shape, placed.kind) != (tensor.shape, tensor.kind):
            raise MtpError(f"{path}: {tensor.name}: reads back as another tensor")
        if _checksum(path, placed.offset, tensor) != checksum:
            raise MtpError(f"{path}: {tensor.name}: reads back with other bytes")


def _checksum(path: Path, offset: int, tensor: PlannedTensor) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as file:
        for begin in range(0, tensor.n_bytes, READ_BYTES):
            n_bytes = min(READ_BYTES, tensor.n_bytes - begin)
            checksum = zlib.crc32(os.pread(file.fileno(), n_bytes, offset + begin), checksum)
    return checksum


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; folders cannot be synced everywhere."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
