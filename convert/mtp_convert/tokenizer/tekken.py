"""Mistral's own tokenizer file, tekken.json: byte-level BPE without a list of merges.

Owns the file's layout (mistral_common's `tekken.py`): special tokens take the first ids, ranked
pieces of bytes the others, and a text is merged into whichever piece has the least rank. GGUF wants
pairs instead, so every pair of pieces that makes a piece is listed, in the order of what it makes.
Knows nothing of GGUF beyond that.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import read_json

NAME = "tekken.json"
N_BYTES = 256
MAX_IDS = 1 << 24  # of a vocabulary: names are made up for ids that the file does not list
# What the first special tokens are in files that do not say, up to their version 7.
_UNNAMED = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
    "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
)  # fmt: skip


@dataclass(frozen=True)
class Tekken:
    """special: texts of the first ids; pieces: bytes of the ids after them, by rank."""

    special: tuple[str, ...]
    pieces: tuple[bytes, ...]
    pattern: str

    @property
    def texts(self) -> list[str]:
        """All of the vocabulary, bytes written as GPT-2 writes them."""
        return [*self.special, *map(byte_text, self.pieces)]

    def merges(self) -> Iterator[str]:
        """Pairs of pieces whose bytes are a piece's; of several for one piece, by their ranks."""
        ranks = {piece: rank for rank, piece in enumerate(self.pieces)}
        for piece in self.pieces[N_BYTES:]:
            cuts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
            pairs = [(ranks[a], ranks[b], a, b) for a, b in cuts if a in ranks and b in ranks]
            for _, _, a, b in sorted(pairs):
                yield f"{byte_text(a)} {byte_text(b)}"


def read_tekken(file: Path) -> Tekken:
    """The vocabulary of a tekken.json; MtpError when it contradicts itself.

    Values of other kinds raise what Python raises, for the caller to name.
    """
    data = read_json(file)
    config = data["config"]
    n_all, n_special = (
        _count(file, config, f"default_{name}") for name in ("vocab_size", "num_special_tokens")
    )
    n_pieces, listed = n_all - n_special, data["vocab"]
    if not N_BYTES <= n_pieces <= len(listed):
        raise MtpError(
            f"{file}: vocab: expected {n_pieces} pieces (config), at least the {N_BYTES} bytes; "
            f"found {len(listed)}"
        )
    pieces = tuple(base64.b64decode(entry["token_bytes"]) for entry in listed[:n_pieces])
    in_order = all(entry["rank"] == rank for rank, entry in enumerate(listed[:n_pieces]))
    begins = pieces[:N_BYTES] == tuple(bytes([i]) for i in range(N_BYTES))
    if not in_order or not begins or len({*pieces}) != n_pieces or b"" in pieces:
        raise MtpError(
            f"{file}: vocab: expected different pieces by rank, the {N_BYTES} bytes first"
        )
    return Tekken(_special(file, data.get("special_tokens"), n_special), pieces, config["pattern"])


def _count(file: Path, config: dict[str, Any], key: str) -> int:
    value = config[key]
    if type(value) is not int or not 0 <= value <= MAX_IDS:
        raise MtpError(f"{file}: {key}: expected a count, found {str(value)[:40]}")
    return value


def _special(file: Path, listed: list[dict[str, str]] | None, n_special: int) -> tuple[str, ...]:
    """The special tokens' texts, made up where the file names fewer than there are."""
    named = _UNNAMED if listed is None else tuple(str(entry["token_str"]) for entry in listed)
    if len(named) > n_special:
        raise MtpError(f"{file}: special_tokens: expected {n_special} at most, found {len(named)}")
    return (*named, *(f"<SPECIAL_{i}>" for i in range(len(named), n_special)))


def _stand_ins() -> dict[int, str]:
    """GPT-2's printable characters for bytes: themselves, or the next ones from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(N_BYTES, 2 * N_BYTES))
    return {byte: chr(byte if byte in plain else next(others)) for byte in range(N_BYTES)}


_STAND_INS = _stand_ins()


def byte_text(piece: bytes) -> str:
    """Bytes as byte-level BPE spells them."""
    return "".join(_STAND_INS[byte] for byte in piece)
