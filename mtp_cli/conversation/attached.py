"""Files that go with a message: their text, between fences, under their names.

Knows files. Knows nothing of terminals or conversations.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mtp_cli.errors import MtpError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as PowerShell may write files
_FENCE = "```"


@dataclass(frozen=True)
class Attached:
    """A file's name, without its folder, and its text."""

    name: str
    text: str

    def __str__(self) -> str:
        longest = max(map(len, re.findall("`{3,}", self.text)), default=0)
        fence = "`" * (longest + 1) if longest else _FENCE
        return f"{self.name}:\n{fence}{Path(self.name).suffix[1:]}\n{self.text.rstrip()}\n{fence}"


def attach(path: Path) -> Attached:
    """Read a file of text; MtpError where it is none."""
    try:
        raw = path.expanduser().read_bytes()
    except OSError as error:
        raise MtpError(f"{path}: {error.strerror}") from error
    except RuntimeError:
        raise MtpError(f"{path}: no such user, and so no home folder; write the path out") from None
    if b"\0" in raw and not raw.startswith(_UTF_16):
        raise MtpError(f"{path}: not a text file; only text can go with a message")
    text = decoded(raw, str(path))
    if not text.strip():
        raise MtpError(f"{path}: the file is empty")
    return Attached(path.name, text)


def decoded(raw: bytes, name: str) -> str:
    """UTF-8, with or without a byte order mark; MtpError, in `name`'s name, for anything else."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.startswith(_UTF_16):
            raise MtpError(f"{name} is UTF-16 text; iconv -f UTF-16 turns it into UTF-8") from error
        raise MtpError(
            f"{name} is not UTF-8 text: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            "iconv -f LATIN1 turns older text into it"
        ) from error


def with_files(request: str, files: Iterable[Attached]) -> str:
    """The files first, so that the request is the last that the model reads."""
    return "\n\n".join([*map(str, files), *([request] if request.strip() else ())])
