"""The table of number formats is ggml's, and what only has to be copied is copied byte for byte."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine.backend.binding import ggml_base
from mtp_cli.errors import MtpError
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import encode_header, pairs
from mtp_convert.gguf.reuse import Wanted
from mtp_convert.gguf.write import write
from mtp_convert.tensors.kinds import Kind, fits, kind_of, row_bytes

Q2_0 = 42  # in ggml since a release that gguf-py has not followed


def ggml(function: str, restype: object) -> Callable[[int], object]:
    found = getattr(ggml_base(), function)
    found.argtypes, found.restype = [ctypes.c_int], restype
    return found  # type: ignore[no-any-return]


def test_the_table_is_ggmls() -> None:
    name = ggml("ggml_type_name", ctypes.c_char_p)
    block, n_bytes = ggml("ggml_blck_size", ctypes.c_int64), ggml("ggml_type_size", ctypes.c_size_t)
    codes = range(max(Kind) + 1)
    assert [code for code in codes if block(code)] == sorted(Kind)  # the others were removed
    for kind in Kind:
        n_values = block(kind)
        assert isinstance(n_values, int)
        assert str(name(kind)) == str(kind.name.lower().encode()).replace("_k", "_K")
        assert row_bytes(kind, 3 * n_values) == 3 * int(str(n_bytes(kind)))
        assert fits(kind, n_values)
        assert fits(kind, n_values + 1) == (n_values == 1)


def announced(tmp_path: Path, code: int) -> bool:
    """Whether ggml's own parser accepts a tensor of that format."""
    from mtp_cli.engine.files import gguf_header

    path = tmp_path / f"{code}.gguf"
    header = bytearray(encode_header(pairs({"general.architecture": "x"}), [
        ("t", (1, 256), Kind.F64, 0)], 32))  # fmt: skip
    at = header.index(int(Kind.F64).to_bytes(4, "little") + bytes(8))
    header[at : at + 4] = code.to_bytes(4, "little")
    path.write_bytes(bytes(header) + bytes(4096))
    try:
        gguf_header.read_header(path)
    except MtpError:
        return False
    return True


def test_ggml_has_none_beyond_the_table(tmp_path: Path) -> None:
    assert announced(tmp_path, max(Kind))
    assert not announced(tmp_path, max(Kind) + 1)
    with pytest.raises(MtpError, match="number format 43 is not known; expected one of ggml's"):
        kind_of(max(Kind) + 1)


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """A model with a head whose matrices are in a format that gguf-py does not know."""
    random = np.random.default_rng(1)
    values = {
        "general.architecture": "glm4moe", "glm4moe.block_count": 2,
        "glm4moe.nextn_predict_layers": 1,
    }  # fmt: skip
    matrix, row = random.bytes(8 * 18), np.ones(64, np.float32).tobytes()
    tensors = [
        ("token_embd.weight", (8, 64), Q2_0, 0), ("blk.0.attn_norm.weight", (64,), 0, 160),
        ("blk.0.ffn_up.weight", (8, 64), Q2_0, 416), ("blk.1.nextn.enorm.weight", (64,), 0, 576),
        ("blk.1.nextn.eh_proj.weight", (8, 64), Q2_0, 832),
    ]  # fmt: skip
    data = b"".join(part + bytes(-len(part) % 32) for part in (matrix, row, matrix, row, matrix))
    path = tmp_path / "newest.gguf"
    header = encode_header(pairs(values), [(n, s, Kind(k), o) for n, s, k, o in tensors], 32)
    path.write_bytes(header + data)
    return path


def test_a_format_that_gguf_py_does_not_know_is_copied(newest: Path, tmp_path: Path) -> None:
    assert any("Q2_0" in line for line in inspect_lines(newest))
    before = read_gguf(newest)
    for name, plan in (("strip", plan_strip(newest)), ("extract", plan_extract(newest))):
        out = tmp_path / f"{name}.gguf"
        write(plan, out)
        after = read_gguf(out)
        assert {t.kind for t in after.tensors.values()} == {Kind.F32, Kind.Q2_0}
        for tensor in after.tensors:
            assert after.read(tensor) == before.read(tensor)


def test_it_is_not_decoded_into_another(newest: Path, tmp_path: Path) -> None:
    plan = plan_strip(newest, Wanted("q8_0"))
    with pytest.raises(MtpError, match=r"ffn_up\.weight: cannot read Q2_0 to change it|token_embd"):
        write(plan, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
