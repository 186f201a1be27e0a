"""Both header readers on damaged files: a valid answer or one MtpError, never anything else.

Bounded, and derandomized so that a run is a run. Inputs that a reader once let through, or that
need a guard of their own, are kept in FOUND.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert.gguf_file import read_gguf
from convert.metadata import encode_header, pairs
from convert.protobuf import read_pieces
from convert.shard import read_header
from mtp_cli.errors import MtpError

GGUF = (
    encode_header(
        pairs({"general.architecture": "llama", "a.n": 3, "a.words": ["x", "yy"], "a.ids": [1, 2]}),
        [("t", (2, 32), Kind.F32, 0), ("u", (32,), Kind.Q8_0, 256)],
        32,
    )
    + bytes(320)
)  # fmt: skip
_TENSORS = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
}
_TEXT = json.dumps(_TENSORS).encode()
SAFETENSORS = len(_TEXT).to_bytes(8, "little") + _TEXT + bytes(24)

BOUNDED = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# (reader, damaged bytes)
FOUND: dict[str, tuple[str, bytes]] = {
    "a header nested beyond Python's recursion": (
        "safetensors", (100_000).to_bytes(8, "little") + b"[" * 100_000),
    "an integer of many digits": (
        "safetensors", (10_004).to_bytes(8, "little") + b"{" + b'"":' + b"1" * 10_000),
    "a tensor count beyond the file": ("gguf", GGUF[:8] + b"\xff" * 8 + GGUF[16:]),
    "a protobuf length beyond the end": ("protobuf", b"\x0a\xff\xff\xff\xff\x0f"),
    "a protobuf piece that is a number": ("protobuf", b"\x08\x01"),
}  # fmt: skip

READERS = {"gguf": read_gguf, "safetensors": read_header, "protobuf": read_pieces}


def read(reader: str, raw: bytes, folder: Path) -> None:
    path = folder / "fuzzed"
    path.write_bytes(raw)
    with contextlib.suppress(MtpError):
        READERS[reader](path)


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """Some bytes changed, then perhaps a piece cut out or put in."""
    raw = bytearray(original)
    for _ in range(draw(st.integers(1, 6))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    where = draw(st.integers(0, len(raw)))
    if draw(st.booleans()):
        del raw[where : where + draw(st.integers(0, 40))]
    else:
        raw[where:where] = draw(st.binary(max_size=16))
    return bytes(raw)


@BOUNDED
@given(raw=damaged(GGUF))
def test_damaged_gguf(raw: bytes, tmp_path: Path) -> None:
    read("gguf", raw, tmp_path)


@BOUNDED
@given(raw=damaged(SAFETENSORS))
def test_damaged_safetensors(raw: bytes, tmp_path: Path) -> None:
    read("safetensors", raw, tmp_path)


@BOUNDED
@given(raw=st.binary(max_size=64))
def test_anything_as_a_sentencepiece_model(raw: bytes, tmp_path: Path) -> None:
    read("protobuf", raw, tmp_path)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(name: str, tmp_path: Path) -> None:
    reader, raw = FOUND[name]
    path = tmp_path / "found"
    path.write_bytes(raw)
    with pytest.raises(MtpError):
        READERS[reader](path)


def test_the_undamaged_files_are_read(tmp_path: Path) -> None:
    for reader, raw in (("gguf", GGUF), ("safetensors", SAFETENSORS)):
        path = tmp_path / reader
        path.write_bytes(raw)
        assert READERS[reader](path)
