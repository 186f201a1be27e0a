"""The mark of a run's folder, in whole models that were written from it: the run may write these
again, and else nothing but head files.

Owns the mark and the file that keeps it. Knows nothing of what else a model holds.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.errors import MtpError
from mtp_convert.gguf.metadata import KEY_WRITER
from mtp_train.files import writing, written_whole

_NAME = "mark.txt"


def mark_of(folder: Path) -> str:
    """A folder's mark, which no other has; made where there is none yet."""
    path = folder / _NAME
    if not path.exists():
        with written_whole(path) as partial:
            partial.write_text(f"mtp-train {uuid.uuid4().hex}")
    with writing(path):
        return path.read_text()


def came_of(folder: Path, file: Path) -> bool:
    """Whether a GGUF was written from what is in this folder."""
    if not (folder / _NAME).exists():
        return False
    try:
        return read_header(file).says(KEY_WRITER, mark_of(folder))
    except MtpError:
        return False
