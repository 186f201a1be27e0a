"""Rows of a target's tables in any of ggml's formats are what gguf-py decodes of the tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.target_tables import stands_for, table_places, to_q8_0
from mtp_cli.engine.types import Floats, Ids
from mtp_cli.errors import MtpError
from tests.engine import tiny
from tests.engine.opening import opened_tables

IDS: Ids = np.array([tiny.N_VOCAB - 2, 7, 7, 0, 100], np.int32)
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_1", "Q5_0")


def decoded(spec: tiny.Spec, name: str) -> Floats:
    kind, values = spec.ggml_type, spec.tensors[name]
    found: Floats = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
    return found[IDS]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_whole_tensor(kind: str, tmp_path: Path) -> None:
    spec = tiny.llama().quantized(gguf.GGMLQuantizationType[kind])
    tables = opened_tables(spec.write(tmp_path / "target.gguf"))
    assert (tables.n_vocab, tables.n_embd) == (tiny.N_VOCAB, tiny.N_EMBD)
    np.testing.assert_array_equal(tables.embedding(IDS), decoded(spec, "token_embd.weight"))
    np.testing.assert_array_equal(tables.output(IDS), decoded(spec, "output.weight"))
    tables.close()


def test_tied_tables_are_one(tmp_path: Path) -> None:
    spec = tiny.llama()
    tensors = {name: t for name, t in spec.tensors.items() if name != "output.weight"}
    tables = opened_tables(replace(spec, tensors=tensors).write(tmp_path / "t.gguf"))
    np.testing.assert_array_equal(tables.output(IDS), tables.embedding(IDS))
    tables.close()


def test_rows_become_the_blocks_that_gguf_py_makes() -> None:
    rows = np.random.default_rng(3).standard_normal((5, 96), np.float32)
    wanted = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(to_q8_0(rows), wanted)


def test_a_file_that_becomes_shorter_is_an_error_of_the_system(tmp_path: Path) -> None:
    path = tiny.llama().write(tmp_path / "target.gguf")
    tables = opened_tables(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(OSError, match="shorter"):
        tables.output(IDS)
    tables.close()


def test_what_has_no_tables_has_no_places_and_what_is_no_table_is_told(tmp_path: Path) -> None:
    spec = tiny.llama()
    flat = {**spec.tensors, "output.weight": spec.tensors["output.weight"][0]}
    with pytest.raises(MtpError, match="cannot be read row by row"):
        opened_tables(replace(spec, tensors=flat).write(tmp_path / "flat.gguf"))
    none = {"output.weight": spec.tensors["output.weight"]}
    path = replace(spec, tensors=none).write(tmp_path / "none.gguf")
    assert table_places(read_shards(path)) is None


def test_trained_rows_stand_for_the_targets_and_others_do_not() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((64, 96), np.float32)
    others = rng.standard_normal((64, 96), np.float32)
    assert stands_for(rows, 3 * rows + 0.3 * others)
    assert not stands_for(rows, others)
    assert not stands_for(rows, np.zeros_like(rows))
