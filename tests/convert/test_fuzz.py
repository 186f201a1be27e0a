"""Damaged headers, read and planned with: a valid answer or one MtpError, never anything else.

Bounded, and derandomized so that a run is a run. Inputs that a reader once let through, or that
need a guard of their own, are kept in FOUND.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.shard import read_header
from mtp_convert.commands.detach import plan_strip
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import encode_header, pairs
from mtp_convert.gguf.reuse import Wanted
from mtp_convert.tokenizer.protobuf import read_pieces

GGUF = (
    encode_header(
        pairs({"general.architecture": "llama", "a.n": 3, "a.words": ["x", "yy"], "a.ids": [1, 2]}),
        [("t", (2, 32), Kind.F32, 0), ("u", (32,), Kind.Q8_0, 256)],
        32,
    )
    + bytes(320)
)  # fmt: skip


def model(**changes: object) -> bytes:
    """A model of one layer and a head, whose metadata can be changed."""
    metadata = {
        "general.architecture": "glm4moe", "glm4moe.block_count": 2, "glm4moe.expert_count": 4,
        "glm4moe.nextn_predict_layers": 1, "glm4moe.attention.head_count": 4,
        "glm4moe.attention.head_count_kv": [2, 2], **changes,
    }  # fmt: skip
    tensors = [
        ("token_embd.weight", (2, 32), Kind.F32, 0),
        ("blk.0.attn_norm.weight", (32,), Kind.F32, 256),
        ("blk.1.nextn.eh_proj.weight", (2, 64), Kind.F16, 384),
    ]  # fmt: skip
    return encode_header(pairs(metadata), tensors, 32) + bytes(640)


MODEL = model()
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


def planned(raw: bytes, folder: Path) -> None:
    """All that inspect and strip make of a model before they write."""
    path = folder / "fuzzed.gguf"
    path.write_bytes(raw)
    for job in (lambda: list(inspect_lines(path)), lambda: plan_strip(path, Wanted("q4_k_m"))):
        with contextlib.suppress(MtpError):
            job()


@BOUNDED
@given(raw=damaged(MODEL))
def test_damaged_models(raw: bytes, tmp_path: Path) -> None:
    planned(raw, tmp_path)


@pytest.mark.parametrize("value", ["word", 1.5, ["a"], np.zeros(0, np.int32), True])
@pytest.mark.parametrize("key", ["block_count", "attention.head_count", "nextn_predict_layers"])
def test_counts_of_another_kind(key: str, value: object, tmp_path: Path) -> None:
    planned(model(**{f"glm4moe.{key}": value}), tmp_path)


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
