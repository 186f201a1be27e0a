"""Which tensor gets which format: as llama.cpp's own quantizer decides, for all it has."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from mtp_convert.commands.build import Options
from mtp_convert.gguf import mixes
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.mixes import MIXES, Traits, choose
from mtp_convert.tensors import formats, outtypes
from mtp_convert.tensors.kinds import Kind
from tests.convert.conftest import ALL, Convert

N_COLS = 256
LAYER = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "ffn_norm")

Model = tuple[str, dict[str, int], dict[str, tuple[int, ...]]]


def dense(n_layers: int, n_kv: int = 8, tied: bool = False, arch: str = "llama") -> Model:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (8, N_COLS)}
    shapes |= {"output_norm.weight": (N_COLS,)} | ({} if tied else {"output.weight": (8, N_COLS)})
    for i in range(n_layers):
        shapes |= {f"blk.{i}.{part}.weight": (4, N_COLS) for part in LAYER}
        shapes |= {f"blk.{i}.{part}.weight": (N_COLS,) for part in NORMS}
    keys = {"block_count": n_layers, "attention.head_count": 8, "attention.head_count_kv": n_kv}
    return arch, keys, shapes


def of_experts(n_layers: int, n_experts: int) -> Model:
    arch, keys, shapes = dense(n_layers)
    for i in range(n_layers):
        for part in ("ffn_gate", "ffn_up", "ffn_down"):
            del shapes[f"blk.{i}.{part}.weight"]
            shapes[f"blk.{i}.{part}_exps.weight"] = (n_experts, 4, N_COLS)
        shapes[f"blk.{i}.ffn_gate_inp.weight"] = (n_experts, N_COLS)
    return arch, keys | {"expert_count": n_experts, "expert_used_count": 2}, shapes


def fused_with_heads(n_layers: int) -> Model:
    """Three heads, q, k and v as one matrix, and rows that do not fit a block."""
    _, keys, shapes = dense(n_layers)
    for i in range(n_layers):
        for part in ("attn_q", "attn_k", "attn_v"):
            del shapes[f"blk.{i}.{part}.weight"]
        shapes[f"blk.{i}.attn_qkv.weight"] = (8, N_COLS)
        shapes[f"blk.{i}.attn_output.weight"] = (4, 96)
        shapes[f"blk.{i}.ffn_up.weight"] = (4, 33)
    for i in range(n_layers - 3, n_layers):
        shapes[f"blk.{i}.nextn.eh_proj.weight"] = (4, 2 * N_COLS)
        shapes[f"blk.{i}.nextn.enorm.weight"] = (N_COLS,)
    return "llama", keys, shapes


MODELS: dict[str, Model] = {
    "17 layers": dense(17),
    "16 layers, 4 queries a key, tied": dense(16, n_kv=2, tied=True),
    "48 layers": dense(48),
    "Llama's 80 layers": dense(80, n_kv=1),
    "Qwen2's 80 layers": dense(80, arch="qwen2"),
    "8 experts": of_experts(16, 8),
    "4 experts": of_experts(18, 4),
    "heads, and odd rows": fused_with_heads(19),
}


def write_model(path: Path, model: Model) -> Path:
    """Nothing but what the quantizer reads: sizes, and matrices of ones."""
    arch, keys, shapes = model
    writer = GGUFWriter(path, arch)
    for key, value in {"context_length": 64, "embedding_length": N_COLS, **keys}.items():
        writer.add_uint32(f"{arch}.{key}", value)
    writer.add_uint32(f"{arch}.feed_forward_length", 4)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    writer.add_uint32(f"{arch}.vocab_size", 8)
    for name, shape in shapes.items():
        is_norm = len(shape) == 1 or "ffn_gate_inp" in name
        writer.add_tensor(name, np.ones(shape, np.float32 if is_norm else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantized(source: Path, outtype: str, out: Path) -> dict[str, Kind]:
    """The formats that llama.cpp's quantizer gives."""
    params: Any = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = int(formats.OUTTYPES[outtype][1]), 1
    code = lib.llama_model_quantize(os.fsencode(source), os.fsencode(out), ctypes.byref(params))
    assert code == 0
    return {tensor.name: tensor.tensor_type for tensor in GGUFReader(out).tensors}


def chosen(path: Path, outtype: str) -> Mapping[str, Kind]:
    file = read_gguf(path)
    shapes = [(tensor.name, tensor.shape) for tensor in file.tensors.values()]
    return choose(outtype, shapes, Traits.of(file.architecture, file.pairs))


@pytest.mark.parametrize("name", MODELS)
def test_mixes_are_llama_cpps(name: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "source.gguf", MODELS[name])
    for outtype in MIXES:
        assert chosen(source, outtype) == quantized(source, outtype, tmp_path / "out.gguf"), outtype


@pytest.mark.parametrize("family", ALL)
def test_each_family_gets_the_formats_of_llama_cpps_quantizer(
    family: str, converted: Convert, tmp_path: Path
) -> None:
    source = converted(family, Options(outtype="bf16"))
    for outtype in ("q4_0", "q2_k", "q4_k_m"):
        wanted = quantized(source, outtype, tmp_path / "out.gguf")
        assert chosen(source, outtype) == wanted, outtype
        options = Options(outtype=outtype, head_outtype=outtype)
        found = GGUFReader(converted(family, options)).tensors
        assert {tensor.name: tensor.tensor_type for tensor in found} == wanted


def test_every_k_quant_of_the_quantizer_has_a_name() -> None:
    """All but Q2_K_S, which llama.cpp makes only with an importance matrix."""
    k_quants = {
        name.removeprefix("LLAMA_FTYPE_MOSTLY_").lower()
        for name in dir(lib)
        if name.startswith("LLAMA_FTYPE_MOSTLY_Q") and "_K" in name
    }
    assert k_quants - {"q2_k_s"} == {name for name in formats.OUTTYPES if "_k" in name}


def test_every_outtype_has_a_format() -> None:
    assert tuple(formats.OUTTYPES) == outtypes.NAMES


@pytest.mark.parametrize(("alias", "name"), outtypes.ALIASES.items())
def test_short_and_capital_names(alias: str, name: str) -> None:
    assert outtypes.canonical(alias.upper()) == name
    assert mixes.choose(alias, [("a.weight", (4, 256))], Traits(1)) == mixes.choose(
        name, [("a.weight", (4, 256))], Traits(1)
    )
