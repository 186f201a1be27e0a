"""What a file's heads accepted when they were made, as the file says it. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator

from mtp_cli.acceptance import KEYS, Record
from mtp_cli.errors import MtpError
from mtp_convert.gguf.model import GgufModel


def record_in(model: GgufModel) -> Record | None:
    """What a file's heads accepted when they were made; None where it does not say."""
    pairs = {k: p.value for k, p in model.file.pairs.items() if k in KEYS}
    try:
        return Record.from_metadata(pairs)
    except MtpError as error:
        raise MtpError(f"{model.path}: {error}") from error


def record_lines(recorded: Record) -> Iterator[str]:
    """For `inspect`."""
    n = len(recorded.answers)
    yield f"accepted when made, {n} prompts, {recorded.target_format} target: {recorded.total}"
