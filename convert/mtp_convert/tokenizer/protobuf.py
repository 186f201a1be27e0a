"""The pieces and rules of a SentencePiece model: the little of its protobuf that is of use here.

Owns the wire format of ModelProto: its pieces (field 1: piece = 1, score = 2, type = 3), and of the
specs of trainer and normalizer (2 and 3) what changes a text's ids. Knows nothing of GGUF beyond
that its token types are SentencePiece's own numbers.
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


@dataclass(frozen=True)
class Rules:
    """How a SentencePiece model reads text, as far as its file says.

    kind:          1 to 4: unigram, BPE, words, characters; None where the file does not say
    normalizer:    the name of what it does to characters, "" for nothing
    merges_spaces: whether a run of spaces is one
    adds_space:    whether a text gets one in front
    """

    kind: int | None = None
    normalizer: str = ""
    merges_spaces: bool = False
    adds_space: bool = True


def read_rules(file: Path) -> Rules:
    """The specs of a SentencePiece model; MtpError when the file is none."""
    try:
        specs = dict(_fields(file.read_bytes()))
        trainer, normalizer = _spec(specs.get(2)), _spec(specs.get(3))
    except OSError as error:
        raise MtpError(f"{file}: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise MtpError(f"{file}: not a SentencePiece model") from error
    kind, name = trainer.get(3), normalizer.get(1)
    maps = bool(normalizer.get(2))
    return Rules(
        kind=kind if isinstance(kind, int) else None,
        normalizer=name.decode("utf-8", "replace")[:40] if maps and isinstance(name, bytes) else "",
        merges_spaces=bool(normalizer.get(4, bool(normalizer))),
        adds_space=bool(normalizer.get(3, True)),
    )


def _spec(raw: bytes | int | None) -> dict[int, bytes | int]:
    return dict(_fields(raw)) if isinstance(raw, bytes) else {}


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
