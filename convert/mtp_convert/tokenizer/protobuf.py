"""The pieces of a SentencePiece model: the little of its protobuf that a vocabulary needs.

Owns the wire format of ModelProto.pieces (field 1: piece = 1, score = 2, type = 3). Knows nothing
of GGUF beyond that its token types are SentencePiece's own numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mtp_cli.errors import MtpError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: int


def read_pieces(file: Path) -> list[Piece]:
    """The vocabulary in id order; MtpError when the file is no SentencePiece model."""
    try:
        pieces = [_piece(raw) for field, raw in _fields(file.read_bytes()) if field == 1]
    except OSError as error:
        raise MtpError(f"{file}: {error.strerror}") from error
    except (ValueError, IndexError, struct.error, AttributeError) as error:
        raise MtpError(f"{file}: not a SentencePiece model") from error
    if not pieces:
        raise MtpError(f"{file}: a SentencePiece model without pieces")
    return pieces


def _piece(raw: bytes | int) -> Piece:
    text, score, kind = "", 0.0, 1
    if isinstance(raw, int):
        raise ValueError("a piece that is a number")
    for field, value in _fields(raw):
        if field == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif field == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif field == 3 and isinstance(value, int):
            kind = value
    return Piece(text, score, kind)


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | int]]:
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        wire = tag & 7
        if wire == _VARINT:
            number, position = _varint(raw, position)
            yield tag >> 3, number
            continue
        if wire == _BYTES:
            length, position = _varint(raw, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > len(raw):
            raise ValueError("a field beyond the end")
        yield tag >> 3, raw[position : position + length]
        position += length


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise ValueError("a number too long")
