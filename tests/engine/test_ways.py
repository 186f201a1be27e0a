"""Adapters, rope and devices: what they change, what they leave, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling, Ways
from mtp_cli.engine.backend.adapters import Lora
from mtp_cli.engine.backend.placement import CPU, EXPERTS, Placement, experts_of
from mtp_cli.engine.backend.rope import Rope
from mtp_cli.errors import MtpError
from tests.engine import tiny

GREEDY = Sampling(temperature=0.0)
PROMPT = tiny.random_ids(12)
RANK = 4


def lora(path: Path, target: tiny.Spec, names: list[str], seed: int = 3) -> dict[str, tiny.Floats]:
    """Write an adapter, with alpha at its rank; by tensor, what it adds to the weights."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, target.architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    added = {}
    for name in names:
        n_out, n_in = target.tensors[name].shape
        a = rng.standard_normal((RANK, n_in)).astype(np.float32)
        b = rng.standard_normal((n_out, RANK)).astype(np.float32)
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
        added[name] = b @ a
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return added


def answer(
    model: Path, ways: Ways | None = None, depth: int = 0, heads: Path | None = None
) -> list[int]:
    with Engine.open(model, heads, n_ctx=256, ways=ways or Ways()) as engine:
        generation = engine.generate(PROMPT, GREEDY, max_tokens=40, depth=depth)
        for _ in generation:
            pass
        return list(generation.tokens)


def test_an_adapter_is_what_its_merged_weights_are(tmp_path: Path) -> None:
    target = tiny.llama()
    names = ["blk.0.attn_q.weight", "blk.1.ffn_down.weight"]
    added = lora(tmp_path / "lora.gguf", target, names)
    merged = copy.deepcopy(target)
    for name, values in added.items():
        merged.tensors[name] = target.tensors[name] + 0.5 * values
    model = target.write(tmp_path / "m.gguf")
    adapted = answer(model, Ways(loras=(Lora(tmp_path / "lora.gguf", 0.5),)))
    assert adapted == answer(merged.write(tmp_path / "merged.gguf"))
    assert adapted != answer(model)
    assert answer(model, Ways(loras=(Lora(tmp_path / "lora.gguf", 0.0),))) == answer(model)


def test_drafting_is_lossless_with_an_adapter(tmp_path: Path) -> None:
    target = tiny.llama()
    lora(tmp_path / "lora.gguf", target, ["blk.0.attn_q.weight"])
    model = target.write(tmp_path / "m.gguf")
    heads = tiny.heads_for(target, hidden="post_norm").write(tmp_path / "heads.gguf")
    ways = Ways(loras=(Lora(tmp_path / "lora.gguf"),))
    assert answer(model, ways, 3, heads) == answer(model, ways)


@pytest.mark.parametrize("kind", ["another model's", "no adapter"])
def test_what_does_not_fit_is_refused(tmp_path: Path, kind: str) -> None:
    target = tiny.llama()
    model = target.write(tmp_path / "m.gguf")
    other = tmp_path / "other.gguf"
    if kind == "no adapter":
        target.write(other)
    else:
        lora(other, tiny.qwen2(), ["blk.0.attn_q.weight"])
    with pytest.raises(MtpError, match=r"other.gguf: no LoRA adapter for this model: ."):
        answer(model, Ways(loras=(Lora(other),)))


def test_another_base_is_that_of_a_file_with_it(tmp_path: Path) -> None:
    target = tiny.llama()
    model = target.write(tmp_path / "m.gguf")
    other = copy.deepcopy(target)
    other.keys["llama.rope.freq_base"] = 500.0
    based = answer(model, Ways(rope=Rope(freq_base=500.0)))
    assert based == answer(other.write(tmp_path / "o.gguf"))
    assert based != answer(model)


def test_a_linear_scale_is_that_of_a_file_with_it(tmp_path: Path) -> None:
    target = tiny.llama()
    model = target.write(tmp_path / "m.gguf")
    other = copy.deepcopy(target)
    other.keys |= {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    scaled = answer(model, Ways(rope=Rope(scaling="linear", freq_scale=0.25)))
    assert scaled == answer(other.write(tmp_path / "o.gguf"))
    assert scaled != answer(model)


def test_yarn_is_that_of_a_file_with_it(tmp_path: Path) -> None:
    target = tiny.llama()
    model = target.write(tmp_path / "m.gguf")
    other = copy.deepcopy(target)
    other.keys |= {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 64,
    }
    rope = Rope(scaling="yarn", freq_scale=0.25, yarn_orig_ctx=64)
    assert answer(model, Ways(rope=rope)) == answer(other.write(tmp_path / "o.gguf"))


def test_drafting_is_lossless_with_another_rope(tmp_path: Path) -> None:
    target = tiny.llama()
    model = target.write(tmp_path / "m.gguf")
    heads = tiny.heads_for(target, hidden="post_norm").write(tmp_path / "heads.gguf")
    ways = Ways(rope=Rope(freq_scale=0.5))
    assert answer(model, ways, 3, heads) == answer(model, ways)


def test_experts_on_the_cpu_answer_the_same(tmp_path: Path) -> None:
    target = tiny.qwen3moe()
    model = target.write(tmp_path / "m.gguf")
    all_of_them = Placement(((EXPERTS, CPU),))
    first = Placement(tuple((pattern, CPU) for pattern in experts_of(1)))
    for placement in (all_of_them, first, Placement(devices=())):
        assert answer(model, Ways(placement)) == answer(model)


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        (Placement(devices=("CUDA9",)), "--device: no device CUDA9 here; there is "),
        (Placement(devices=("CPU",)), "--device: no device CPU here; there is "),
        (Placement((("exps", "CUDA9"),)), "no buffer type CUDA9 here; there are .*CPU"),
        (Placement(split=(1.0,) * 500), "--tensor-split: 500 shares, and at most "),
    ],
)
def test_devices_that_are_not_there_are_said(
    tmp_path: Path, placement: Placement, said: str
) -> None:
    model = tiny.llama().write(tmp_path / "m.gguf")
    with pytest.raises(MtpError, match=said):
        answer(model, Ways(placement))
