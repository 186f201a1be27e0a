"""The record of what a head accepted, written into its file. Knows nothing of measuring."""

from __future__ import annotations

from pathlib import Path

from mtp_cli.acceptance import KEYS, Record
from mtp_cli.errors import MtpError
from mtp_cli.whole_file import check_place
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.model import GgufModel, open_model
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import as_they_are
from mtp_convert.gguf.write import write
from mtp_train.files import check_free


def check_record(path: Path) -> GgufModel:
    """The file with heads that a record can be put into; MtpError where it cannot."""
    model = open_model(path)
    if not model.n_heads:
        raise MtpError(f"{path}: holds no heads, of which a record could be")
    check_place(path)
    check_free(path, path.stat().st_size)  # it is written anew beside itself
    return model


def write_record(path: Path, record: Record) -> None:
    """Put a record into a file with heads, instead of one that is there; the tensors stay as they
    are."""
    model = check_record(path)
    kept = {key: value for key, value in model.file.pairs.items() if key not in KEYS}
    added = {key: pair(value) for key, value in record.metadata().items()}
    tensors = as_they_are(model.file, model.file.tensors)
    write(Plan({**kept, **added}, tuple(t.planned(None) for t in tensors)), path)
