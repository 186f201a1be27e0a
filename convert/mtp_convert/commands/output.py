"""Where a command may write: never over what it reads, over nothing but files of ours unasked.

Owns the mark by which a GGUF of ours is known. Knows nothing of plans' contents.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint import meta
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import KEY_WRITER, pair
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.splits import parts_of

WRITER = "mtp-convert"


def marked(plan: Plan) -> Plan:
    """The plan of a file that says who wrote it."""
    return dataclasses.replace(plan, metadata={**plan.metadata, KEY_WRITER: pair(WRITER)})


def check_output(out: Path, inputs: Iterable[Path], force: bool) -> None:
    """MtpError where `out` must not be written over; inputs: files and folders that are read."""
    if not os.path.lexists(out) or os.path.isdir(out):  # of a folder, writing will say
        return
    for file in _files(inputs):
        if _is_same(out, file):
            raise MtpError(f"{out}: is read by this very command ({file}); name another output")
    if out.exists() and not out.is_file():
        raise MtpError(f"{out}: not a regular file; name another output")
    if not force and out.exists() and not is_ours(out):
        raise MtpError(f"{out}: exists, and is no GGUF of mtp-convert's; --force overwrites it")


def is_ours(path: Path) -> bool:
    """Whether a file can be made again by a command of ours."""
    try:
        file = read_gguf(path)
        return file.text(KEY_WRITER) == WRITER or file.text(head_file.KEY_TYPE) == head_file.TYPE
    except MtpError:
        return False


def _files(inputs: Iterable[Path]) -> Iterator[Path]:
    """Every file that may be read, whatever it is called."""
    for path in inputs:
        if not path.is_dir():
            yield from parts_of(path)
            continue
        for folder in dict.fromkeys((path, meta.tokenizer_folder(path))):
            # GGUFs in a checkpoint's folder are made from it.
            yield from (file for file in folder.iterdir() if file.suffix != ".gguf")


def _is_same(a: Path, b: Path) -> bool:
    """Also through links, of either kind."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False
