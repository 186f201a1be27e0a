"""Against llama.cpp's own converter and transformers' own forward; opt-in (see convert/README.md).

Needs PyTorch, transformers 5.23 and the source tree of llama.cpp that the llama-cpp-python sdist
carries, named by MTP_LLAMA_CPP. None of them is a dependency of the project.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from convert.build import Options, Part, plan_checkpoint
from convert.checkpoint import open_checkpoint
from convert.write import write
from tests.convert.checkpoints import Tiny, write_checkpoint
from tests.convert.conftest import ALL, FAMILIES, WITH_HEADS, Convert
from tests.convert.expectation import dequantized
from tests.convert.native import trunk_rows
from tests.convert.test_families import PROMPT

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]
SCRIPT = Path(__file__).with_name("llama_cpp_converter.py")

# transformers renames keys of these configs, and llama.cpp's converter then misses them.
RAW = ("mimo2", "step35")
# What ours has and llama.cpp's lacks, and the reverse.
FUSED = {f"blk.{i}.attn_qkv.weight" for i in (3, 4, 5)}
# It takes this head's router for another layer's and quantizes it; ours stays in float32.
ROUTER = ("nemotron_h_moe", "blk.4.ffn_gate_inp.weight")
SEPARATE = {f"blk.{i}.attn_{part}.weight" for i in (3, 4, 5) for part in "qkv"}


def reference(family: str, folder: Path, outtype: str, out: Path) -> Path:
    tree = os.environ.get("MTP_LLAMA_CPP")
    assert tree, "MTP_LLAMA_CPP must name llama.cpp's source tree"
    pre = "glm4" if family.startswith("glm") else "qwen2"
    how = "raw" if family in RAW else "transformers"
    command = [sys.executable, str(SCRIPT), tree, pre, how, str(folder), "--outfile", str(out)]
    done = subprocess.run([*command, "--outtype", outtype], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("family", ALL)
def test_same_file_as_llama_cpps_converter(
    family: str, outtype: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, out = checkpoint(family), tmp_path / "ours.gguf"
    pre = "glm4" if family.startswith("glm") else "qwen2"
    # Its deepseek2 drops the heads, so only the trunks can be compared.
    part: Part = "trunk" if family == "deepseek3" else "all"
    write(plan_checkpoint(open_checkpoint(folder), Options(part, outtype, pre=pre)), out)
    theirs = reference(family, folder, outtype, tmp_path / "theirs.gguf")
    compare_tensors(GGUFReader(out), GGUFReader(theirs))
    ours, wanted = metadata(out), metadata(theirs)
    if family == "glm4moelite":  # they leave the gating to a guess by size
        assert ours.pop("deepseek2.expert_gating_func")[1] == 2
    assert ours == wanted


def compare_tensors(ours: GGUFReader, theirs: GGUFReader) -> None:
    found = {t.name: t for t in ours.tensors}
    wanted = {t.name: t for t in theirs.tensors}
    assert found.keys() - wanted.keys() in (set(), FUSED)
    assert wanted.keys() - found.keys() in (set(), SEPARATE)
    for name in found.keys() & wanted.keys():
        a, b = found[name], wanted[name]
        if (ours.fields["general.architecture"].contents(), name) == ROUTER:
            assert a.tensor_type == GGMLQuantizationType.F32
            continue
        assert (a.tensor_type, list(a.shape)) == (b.tensor_type, list(b.shape)), name
        if name.endswith("ssm_a"):  # exp of numpy and of PyTorch differ in the last bit
            np.testing.assert_allclose(a.data, b.data, rtol=3e-7)
        else:
            assert a.data.tobytes() == b.data.tobytes(), name


def metadata(path: Path) -> dict[str, Any]:
    fields = GGUFReader(path).fields
    return {
        key: (field.types, field.contents())
        for key, field in fields.items()
        if not key.startswith("GGUF.")
    }


@pytest.mark.parametrize("family", WITH_HEADS)
def test_same_trunk_as_llama_cpps_converter_without_heads(
    family: str, checkpoint: Callable[[str], Path], converted: Convert, tmp_path: Path
) -> None:
    ours = converted(family, Options("trunk", outtype="f32"))
    theirs = reference(family, checkpoint(family), "f32", tmp_path / "theirs.gguf")
    wanted = {t.name: t.data.tobytes() for t in GGUFReader(theirs).tensors}
    for tensor in GGUFReader(ours).tensors:
        same = wanted[tensor.name] == tensor.data.tobytes()
        assert same or tensor.name.endswith("ssm_a"), tensor.name


def without_fp8(tiny: Tiny) -> Tiny:
    """The same weights in float32: transformers runs FP8 on GPUs only."""
    config = {k: v for k, v in tiny.config.items() if k != "quantization_config"}
    plain = Tiny(config, byte_fallback=tiny.byte_fallback)
    for name, values in dequantized(tiny).items():
        plain.put(name, values, "F32")
    return plain


# transformers has no class for MiMo-V2 and Step-3.5 that reads these files.
FORWARD = [name for name in FAMILIES if name not in ("qwen35_vision", "mimo2", "step35")]


@pytest.mark.parametrize("family", FORWARD)
def test_same_logits_as_transformers(family: str, tmp_path: Path) -> None:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tiny = without_fp8(FAMILIES[family][0]())
    if "index_topk" in tiny.config:
        # All keys, so that both attend to the same: which key is dropped last is a near-tie that
        # half precision decides.
        tiny.config["index_topk"] = 64
    folder = write_checkpoint(tmp_path / "x", tiny)
    out = tmp_path / "x.gguf"
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="f32")), out)
    found, _ = trunk_rows(out, PROMPT, nextn=bool(FAMILIES[family][2]))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        wanted = model(torch.tensor([PROMPT])).logits[0].numpy()
    assert np.ptp(wanted) > 5
    assert np.abs(found - wanted).max() < 0.03
