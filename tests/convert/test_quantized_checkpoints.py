"""Checkpoints that say how they are quantized: FP8 in its layouts converts, other kinds are named.

Expected values are worked out here, by the definition of each layout.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFReader

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.checkpoint.shard import read_header
from mtp_convert.commands.build import Options, Part, plan_checkpoint
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.write import write
from mtp_convert.tensors.fp8 import CODES, scaled
from mtp_convert.tensors.sources import load, load_rows
from tests.convert import checkpoints_mtp
from tests.convert.checkpoints import Tiny, llama, write_checkpoint, write_shard
from tests.convert.conftest import Convert
from tests.convert.expectation import e4m3

Floats = npt.NDArray[np.float32]
NAME = "model.layers.1.mlp.down_proj.weight"  # (64, 96)
STEM = NAME.removesuffix(".weight")
TO = "blk.1.ffn_down.weight"
ROWS, COLUMNS = 64, 96
ONE = np.ones((), np.float32)


def planned(folder: Path, part: Part = "all") -> Plan:
    return plan_checkpoint(open_checkpoint(folder), Options(part, outtype="f32"))


def values(folder: Path, name: str = TO) -> Floats:
    (tensor,) = (tensor for tensor in planned(folder).tensors if tensor.name == name)
    raw = b"".join(map(bytes, tensor.blocks()))
    return np.frombuffer(raw, "<f4").reshape(tensor.shape)


def codes(*shape: int, seed: int = 5) -> npt.NDArray[np.uint8]:
    """FP8 codes up to about 4, of both signs."""
    random = np.random.default_rng(seed)
    signs = random.integers(0, 2, shape, np.uint8) << 7
    return np.asarray(random.integers(0, 0x50, shape, np.uint8) | signs, np.uint8)


def decoded(raw: npt.NDArray[np.uint8]) -> Floats:
    return np.asarray(np.vectorize(e4m3, otypes=[np.float32])(raw), np.float32)


def random_scales(*shape: int) -> Floats:
    return (0.01 + np.random.default_rng(6).random(shape) / 50).astype(np.float32)


def spread(scales: Floats, rows: int, columns: int) -> Floats:
    """A scale for every value of the matrix."""
    return np.kron(scales, np.ones((rows, columns), np.float32))[:ROWS, :COLUMNS]


# layout -> (scales as stored, a scale for each value, what the configuration says)
BLOCK = {"quant_method": "fp8", "weight_block_size": [48, 40]}
GROUPS = {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "block",
                                  "block_structure": [48, 40]}}}  # fmt: skip
GROUP_32 = {"group_0": {"weights": {"num_bits": 8, "strategy": "group", "group_size": 32}}}
_GRID = random_scales(2, 3)
_ROW = random_scales(ROWS, 1)
LAYOUTS: dict[str, tuple[Floats, Floats, dict[str, Any]]] = {
    "one": (_GRID[0, 0], spread(_GRID[:1, :1], ROWS, COLUMNS), {"quant_method": "fp8"}),
    "one in a list": (_GRID[:1, 0], spread(_GRID[:1, :1], ROWS, COLUMNS), {"quant_method": "fp8"}),
    "one in a matrix": (_GRID[:1, :1], spread(_GRID[:1, :1], ROWS, COLUMNS), {}),
    "each row": (_ROW, spread(_ROW, 1, COLUMNS), {"quant_method": "fbgemm_fp8"}),
    "each row, a list": (_ROW[:, 0], spread(_ROW, 1, COLUMNS), {"quant_method": "modelopt"}),
    "each row, turned": (_ROW.T, spread(_ROW, 1, COLUMNS), {"quant_method": "compressed-tensors"}),
    "blocks": (_GRID, spread(_GRID, 48, 40), BLOCK),
    "blocks, turned": (np.ascontiguousarray(_GRID.T), spread(_GRID, 48, 40), BLOCK),
    "blocks with ones between": (_GRID[:, None, :, None], spread(_GRID, 48, 40), BLOCK),
    "blocks of compressed-tensors": (_GRID, spread(_GRID, 48, 40),
                                     {"quant_method": "compressed-tensors",
                                      "config_groups": GROUPS}),
    "groups in rows": (random_scales(ROWS, 3), spread(random_scales(ROWS, 3), 1, 32),
                       {"quant_method": "compressed-tensors", "config_groups": GROUP_32}),
    "undeclared blocks": (random_scales(4, 3), spread(random_scales(4, 3), 16, 32), {}),
}  # fmt: skip


def fp8(scales: Floats, suffix: str, config: dict[str, Any], stored: str = "F32") -> Tiny:
    """A Llama with one matrix in FP8."""
    tiny = llama()
    if config:
        tiny.config["quantization_config"] = config
    tiny.put(NAME, codes(ROWS, COLUMNS), "F8_E4M3")
    name = NAME + suffix if suffix.startswith("_") else STEM + suffix
    tiny.put(name, scales, stored)
    return tiny


@pytest.mark.parametrize("suffix", ["_scale_inv", "_scale", ".scale"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fp8_in_every_layout(layout: str, suffix: str, tmp_path: Path) -> None:
    scales, wanted, config = LAYOUTS[layout]
    found = values(write_checkpoint(tmp_path / "x", fp8(scales, suffix, config)))
    np.testing.assert_array_equal(found, decoded(codes(ROWS, COLUMNS)) * wanted)


def test_blocks_of_128_need_no_declaration(tmp_path: Path) -> None:
    """DeepSeek's, where the last ones are cut: 64 x 96 has one, 200 x 300 has two times three."""
    scales = random_scales(2, 3)
    raw = codes(200, 300)
    write_shard(tmp_path / "x", {"w": raw, "s": scales}, {"w": "F8_E4M3", "s": "F32"})
    entries = read_header(tmp_path / "x")
    wanted = np.kron(scales, np.ones((128, 128), np.float32))[:200, :300]
    found = load(scaled(entries["w"], entries["s"], ()))
    np.testing.assert_array_equal(found, decoded(raw) * wanted)


@pytest.mark.parametrize("turned", [False, True])
def test_fused_experts_with_blocks_of_their_own(turned: bool, tmp_path: Path) -> None:
    scales, raw = random_scales(3, 2, 4), codes(3, 40, 50)
    stored = np.ascontiguousarray(scales.transpose(0, 2, 1)) if turned else scales
    write_shard(tmp_path / "x", {"w": raw, "s": stored}, {"w": "F8_E4M3", "s": "F32"})
    entries = read_header(tmp_path / "x")
    wanted = decoded(raw) * np.stack(
        [np.kron(each, np.ones((32, 16), np.float32))[:40, :50] for each in scales]
    )
    source = scaled(entries["w"], entries["s"], [(32, 16)])
    np.testing.assert_array_equal(load(source), wanted)
    np.testing.assert_array_equal(load_rows(source, 35, 85), wanted.reshape(-1, 50)[35:85])


@pytest.mark.parametrize("stored", ["BF16", "F16", "F64"])
def test_scales_in_other_formats(stored: str, tmp_path: Path) -> None:
    exact = np.float32(2.0) ** np.arange(-8, -2, dtype=np.float32).reshape(2, 3)
    found = values(write_checkpoint(tmp_path / "x", fp8(exact, "_scale", BLOCK, stored)))
    np.testing.assert_array_equal(found, decoded(codes(ROWS, COLUMNS)) * spread(exact, 48, 40))


@pytest.mark.parametrize("stored", ["F8_E8M0", "U8"])
def test_scales_that_are_powers_of_two(stored: str, tmp_path: Path) -> None:
    """MXFP8 and DeepSeek's ue8m0: an exponent with a bias of 127, for every 32 values of a row."""
    exponents = np.random.default_rng(7).integers(110, 130, (ROWS, 3), np.uint8)
    tiny = fp8(np.zeros(1, np.float32), "_scale", {"quant_method": "mxfp8", "group_size": 32})
    tiny.put(NAME + "_scale", exponents, "F8_E4M3")  # bytes; the header says what they are
    folder = write_checkpoint(tmp_path / "x", tiny)
    for shard in folder.glob("*.safetensors"):
        raw = shard.read_bytes()
        n = int.from_bytes(raw[:8], "little")
        at = raw.find(f'"{NAME}_scale"'.encode())
        if at >= 0:
            head = raw[8:at] + raw[at : 8 + n].replace(b"F8_E4M3", stored.encode(), 1)
            shard.write_bytes(len(head).to_bytes(8, "little") + head + raw[8 + n :])
    scales = (np.float32(2.0) ** (exponents.astype(np.float32) - 127)).astype(np.float32)
    wanted = decoded(codes(ROWS, COLUMNS)) * spread(scales, 1, 32)
    np.testing.assert_array_equal(values(folder), wanted)


def test_the_other_fp8(tmp_path: Path) -> None:
    """E5M2 is the upper half of a float16."""
    wanted = (np.arange(256).astype("<u2") << 8).view("<f2").astype(np.float32)
    np.testing.assert_array_equal(CODES["F8_E5M2"], wanted)
    assert CODES["F8_E5M2"][0x3C] == 1
    assert CODES["F8_E5M2"][0xC1] == -2.5


def test_modules_that_were_not_converted_stay_as_they_are(tmp_path: Path) -> None:
    tiny = fp8(_GRID, "_scale_inv", BLOCK | {"modules_to_not_convert": ["lm_head"]})
    found = values(write_checkpoint(tmp_path / "x", tiny), "output.weight")
    np.testing.assert_array_equal(found, tiny.tensors["lm_head.weight"])


UNUSED = ("model.layers.0.self_attn.k_scale", "model.layers.0.self_attn.v_scale",
          "model.layers.0.self_attn.k_proj.k_scale", "model.layers.1.self_attn.q_scale",
          "model.layers.1.self_attn.kv_scale", "model.layers.1.self_attn.attn.prob_scale",
          STEM + ".input_scale", STEM + ".activation_scale", STEM + ".act_scale",
          STEM + ".output_scale", STEM + ".input_scale_ub",
          "model.layers.0.mlp.experts.gate_up_proj_activation_scale")  # fmt: skip


def test_scales_of_caches_and_activations_are_left_out_with_a_reason(tmp_path: Path) -> None:
    tiny = llama()
    wanted = [tensor.name for tensor in planned(write_checkpoint(tmp_path / "a", tiny)).tensors]
    for name in UNUSED:
        tiny.put(name, ONE, "F32")
    plan = planned(write_checkpoint(tmp_path / "b", tiny))
    assert [tensor.name for tensor in plan.tensors] == wanted
    (note,) = (note for note in plan.notes if "left out" in note)
    assert note.startswith(f"{len(UNUSED)} scales of activations or of a cache of keys and values")


@pytest.mark.parametrize("name", [STEM + ".pre_quant_scale", "model.layers.1.scale"])
def test_a_scale_of_any_other_kind_is_refused(name: str, tmp_path: Path) -> None:
    tiny = llama()
    tiny.put(name, np.ones(COLUMNS, np.float32), "F32")
    with pytest.raises(MtpError, match="no tensor that Llama is known to have"):
        planned(write_checkpoint(tmp_path / "x", tiny))


Pack = Callable[[Tiny, str], None]


def qweight(tiny: Tiny, name: str) -> None:
    stem = name.removesuffix("weight")
    tiny.put(stem + "qweight", np.zeros((8, ROWS), np.int64), "I64")
    tiny.put(stem + "scales", np.ones((2, ROWS), np.float32), "F32")


def weight_packed(tiny: Tiny, name: str) -> None:
    tiny.put(name + "_packed", np.zeros((ROWS, 12), np.int64), "I64")
    tiny.put(name + "_scale", np.ones((ROWS, 3), np.float32), "F32")


def absmax(tiny: Tiny, name: str) -> None:
    tiny.put(name, np.zeros((ROWS * COLUMNS // 2, 1), np.int64), "I64")
    tiny.put(name + ".absmax", np.ones(ROWS, np.float32), "F32")


def integers(tiny: Tiny, name: str) -> None:
    tiny.put(name, np.zeros((ROWS, COLUMNS), np.int64), "I64")
    tiny.put(name + "_scale", np.ones((ROWS, 1), np.float32), "F32")


KINDS: dict[str, tuple[Pack, dict[str, Any], str]] = {
    "GPTQ": (qweight, {"quant_method": "gptq", "bits": 4}, r"quantized \(gptq, 4 bits\)"),
    "AWQ": (qweight, {"quant_method": "awq", "w_bit": 4}, r"quantized \(awq, 4 bits\)"),
    "AutoRound": (qweight, {"quant_method": "auto-round", "bits": 2}, r"\(auto-round, 2 bits\)"),
    "unnamed": (qweight, {}, r"quantized \(GPTQ or AWQ\)"),
    "int4": (weight_packed, {"quant_method": "compressed-tensors", "format": "pack-quantized",
                             "config_groups": {"g": {"weights": {"num_bits": 4}}}},
             r"quantized \(compressed-tensors, pack-quantized, 4 bits\)"),
    "bitsandbytes": (absmax, {"quant_method": "bitsandbytes", "load_in_4bit": True},
                     r"quantized \(bitsandbytes, 4 bits\)"),
    "bitsandbytes, unnamed": (absmax, {}, r"quantized \(bitsandbytes\)"),
    "int8": (integers, {"quant_method": "compressed-tensors", "format": "int-quantized"},
             r"quantized \(compressed-tensors, int-quantized\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_named_and_refused(kind: str, tmp_path: Path) -> None:
    pack, config, message = KINDS[kind]
    tiny = llama()
    if config:
        tiny.config["quantization_config"] = config
    tiny.drop(NAME)
    pack(tiny, NAME)
    folder = write_checkpoint(tmp_path / "x", tiny)
    with pytest.raises(MtpError, match=message):
        planned(folder)
    lines = list(inspect_lines(folder))
    (refused,) = (line for line in lines if line.startswith("convert refuses: "))
    assert "quantized" in refused
    assert not [line for line in lines if line.startswith("runs in")]


def test_a_method_that_a_file_beside_config_json_names(tmp_path: Path) -> None:
    tiny = llama()
    tiny.drop(NAME)
    qweight(tiny, NAME)
    folder = write_checkpoint(tmp_path / "x", tiny)
    (folder / "quantize_config.json").write_text('{"quant_method": "gptq", "bits": 3}')
    with pytest.raises(MtpError, match=r"quantized \(gptq, 3 bits\)"):
        planned(folder)


def test_a_packed_output_is_not_taken_for_a_tied_one(tmp_path: Path) -> None:
    """Without it the heads would get the embedding in its place, and nobody would know."""
    tiny = checkpoints_mtp.glm4moe()
    tiny.drop("lm_head.weight")
    qweight(tiny, "lm_head.weight")
    folder = write_checkpoint(tmp_path / "x", tiny)
    for part in ("all", "target", "heads"):
        with pytest.raises(MtpError, match=r"lm_head\.weight: quantized \(GPTQ or AWQ\)"):
            planned(folder, part)


def test_rotated_inputs_are_refused(tmp_path: Path) -> None:
    tiny = fp8(_GRID, "_scale", BLOCK | {"transform_config": {"config_groups": {"R1": {}}}})
    with pytest.raises(MtpError, match="transform_config: inputs that are rotated"):
        planned(write_checkpoint(tmp_path / "x", tiny))


def of_a_quantized_target(family: str) -> Tiny:
    """The matrices of the target's layers packed, its norms and the heads plain."""
    build = {"glm4moe": checkpoints_mtp.glm4moe, "qwen35": checkpoints_mtp.qwen35}[family]
    tiny = build()
    tiny.config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    for name in list(tiny.tensors):
        in_target = any(f"model.layers.{i}." in name for i in range(3))
        if in_target and name.endswith("_proj.weight"):
            tiny.drop(name)
            qweight(tiny, name)
    return tiny


@pytest.mark.parametrize("family", ["glm4moe", "qwen35"])
def test_heads_of_a_quantized_target(
    family: str, converted: Convert, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Alone and onto a GGUF, byte for byte as from the checkpoint that was quantized."""
    folder = write_checkpoint(tmp_path / "x", of_a_quantized_target(family))
    with pytest.raises(MtpError, match="quantized"):
        planned(folder)
    found, wanted = planned(folder, "heads"), planned(checkpoint(family), "heads")
    assert found.header() != b""
    assert [t.name for t in found.tensors] == [t.name for t in wanted.tensors]
    for ours, theirs in zip(found.tensors, wanted.tensors, strict=True):
        assert b"".join(map(bytes, ours.blocks())) == b"".join(map(bytes, theirs.blocks()))
    same = ("mtp.trunk.fingerprint", "mtp.n_vocab")
    assert [found.metadata.get(key) for key in same] == [wanted.metadata.get(key) for key in same]
    target, out = converted(family, Options("target", outtype="f32")), tmp_path / "grafted.gguf"
    write(plan_graft(target, folder), out)
    whole = {t.name: t.data.tobytes() for t in GGUFReader(converted(family)).tensors}
    grafted = {t.name: t.data.tobytes() for t in GGUFReader(out).tensors}
    assert grafted == whole
    assert "heads alone: mtp-convert graft, or convert --heads-only" in list(inspect_lines(folder))


@pytest.mark.oracle
@pytest.mark.parametrize("layout", ["one in a list", "each row", "blocks", "groups in rows"])
def test_as_compressed_tensors_decompresses(layout: str, tmp_path: Path) -> None:
    torch: Any = importlib.import_module("torch")
    ct: Any = importlib.import_module("compressed_tensors.quantization")
    forward: Any = importlib.import_module("compressed_tensors.quantization.lifecycle.forward")
    scales, _, config = LAYOUTS[layout]
    strategy: dict[str, Any] = {
        "one in a list": {"strategy": "tensor"}, "each row": {"strategy": "channel"},
        "blocks": {"strategy": "block", "block_structure": [48, 40]},
        "groups in rows": {"strategy": "group", "group_size": 32},
    }  # fmt: skip
    args = ct.QuantizationArgs(num_bits=8, type="float", symmetric=True, **strategy[layout])
    raw = torch.from_numpy(codes(ROWS, COLUMNS)).view(torch.float8_e4m3fn)
    wanted = forward.dequantize(raw, torch.from_numpy(np.array(scales)), args=args)
    found = values(write_checkpoint(tmp_path / "x", fp8(scales, "_scale", config)))
    np.testing.assert_array_equal(found, wanted.float().numpy())
