"""The GGUF header reader: agrees with gguf-py on good files, one line on every bad one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from mtp_cli.errors import MtpError
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import encode_header, pairs
from mtp_convert.gguf.model import open_model


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("a.float", 1.5)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "grüße")
    writer.add_array("a.ids", [1, -2, 3])
    writer.add_array("a.words", ["x", "yy", ""])
    writer.add_uint64("a.large", 1 << 40)
    writer.add_tensor("token_embd.weight", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.add_tensor("small", np.zeros(3, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_agrees_with_gguf_py(good: Path) -> None:
    file, reader = read_gguf(good), GGUFReader(good)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            value, wanted = file.pairs[key].value, field.contents()
            assert (value.tolist() if isinstance(value, np.ndarray) else value) == wanted
    for tensor in reader.tensors:
        found = file.tensors[tensor.name]
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        assert (found.kind, found.n_bytes) == (tensor.tensor_type, tensor.n_bytes)
        assert found.offset == tensor.data_offset
        assert file.read(tensor.name) == tensor.data.tobytes()


def header(
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int = 0,
    n_pairs: int = 0,
    rest: bytes = b"",
) -> bytes:
    return magic + struct.pack("<IQQ", version, n_tensors, n_pairs) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor(
    name: bytes = b"t", dims: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0
) -> bytes:
    shape = struct.pack(f"<{len(dims)}Q", *dims)
    return text(name) + struct.pack("<I", len(dims)) + shape + struct.pack("<IQ", kind, offset)


BAD = {
    "empty": (b"", "the file is empty"),
    "not a gguf": (b"hello world, hello", "not a GGUF file"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version 1": (header(version=1), "GGUF version 1; expected 3"),
    "version 9": (header(version=9), "GGUF version 9"),
    "cut in the counts": (header()[:10], "expected 16 bytes at 8, the file has 10"),
    "absurd counts": (header(n_tensors=1 << 60), "tensors and 0 pairs announced"),
    "pairs that are not there": (header(n_pairs=2), "a metadata key"),
    "an absurd key": (header(n_pairs=1, rest=struct.pack("<Q", 1 << 62)), "a string of"),
    "a key that is not UTF-8": (header(n_pairs=1, rest=text(b"\xff")), "not UTF-8"),
    "an unknown value type": (
        header(n_pairs=1, rest=text(b"k") + struct.pack("<I", 99)), "k: value type 99"),
    "an absurd array": (
        header(n_pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 4, 1 << 60)), "k: "),
    "an absurd array of strings": (
        header(n_pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 60)),
        "strings announced"),
    "an array of arrays": (
        header(n_pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 9, 1)), "arrays of arrays"),
    "a key twice": (
        header(n_pairs=2, rest=(text(b"k") + struct.pack("<IB", 0, 1)) * 2), "k: appears twice"),
    "an odd alignment": (
        header(n_pairs=1, rest=text(b"general.alignment") + struct.pack("<II", 4, 33)),
        "not a power of two"),
    "no dimensions": (header(n_tensors=1, rest=tensor(dims=())), "t: 0 dimensions"),
    "nine dimensions": (header(n_tensors=1, rest=tensor(dims=(1,) * 9)), "t: 9 dimensions"),
    "a size of zero": (header(n_tensors=1, rest=tensor(dims=(0,))), "cannot hold shape"),
    "an unknown format": (header(n_tensors=1, rest=tensor(kind=77)), "t: number format 77"),
    "rows that are no blocks": (
        header(n_tensors=1, rest=tensor(dims=(33,), kind=8) + bytes(999)), "Q8_0 cannot hold"),
    "beyond the end": (header(n_tensors=1, rest=tensor()), "is it truncated"),
    "an absurd offset": (
        header(n_tensors=1, rest=tensor(offset=1 << 63) + bytes(999)), "is it truncated"),
    "an odd offset": (header(n_tensors=1, rest=tensor(offset=3) + bytes(999)), "do not fit"),
    "an absurd shape": (
        header(n_tensors=1, rest=tensor(dims=(1 << 32, 1 << 31)) + bytes(99)), "do not fit"),
    "overlapping": (
        header(n_tensors=2, rest=tensor() + tensor(b"u") + bytes(999)), "u: overlaps"),
    "a name twice": (
        header(n_tensors=2, rest=tensor() + tensor(offset=128) + bytes(999)), "t: appears twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_one_line(name: str, tmp_path: Path) -> None:
    raw, message = BAD[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw)
    with pytest.raises(MtpError, match=message) as caught:
        read_gguf(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def written(tmp_path: Path, change: Callable[[dict[str, object]], None]) -> Path:
    """A header that is well-formed, with metadata that makes no sense."""
    values: dict[str, object] = {"general.architecture": "llama", "llama.block_count": 2}
    change(values)
    path = tmp_path / "odd.gguf"
    described = [("token_embd.weight", (2, 32), GGMLQuantizationType.F32, 0)]
    path.write_bytes(encode_header(pairs(values), described, 32) + bytes(256))
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.nextn_predict_layers", 9, "9 heads in 2 blocks"),
        ("llama.block_count", "two", "llama.block_count: expected a count, found two"),
        ("split.count", 3, "one of 3 parts; expected a name that ends in"),
        ("general.architecture", "", "general.architecture is missing"),
    ],
)
def test_a_model_that_makes_no_sense(key: str, value: object, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, lambda values: values.update({key: value}))
    with pytest.raises(MtpError, match=message):
        _ = open_model(path).n_heads
