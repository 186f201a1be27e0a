"""What inspect says of every family, as a checkpoint and as a GGUF, whole and without its heads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.inspect import inspect_lines, template_kind
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import encode_header, pairs
from mtp_convert.gguf.mixes import Traits
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import AS_IT_IS, as_they_are, planned
from mtp_convert.gguf.write import write
from mtp_convert.tensors.kinds import Kind
from tests.convert.checkpoints import Tiny, write_checkpoint
from tests.convert.conftest import ALL, APART, BESIDE, FAMILIES, WITH_HEADS, Convert
from tests.convert.expectation import canonical, text_config
from tests.convert.heads import write_head_file
from tests.engine import tiny
from tests.engine.tiny_sidecar import parts

Folder = Callable[[str], Path]
TARGET = Options("target", outtype="q8_0")
CHAINED = ("mimo2", "mimo25", "step35", "step37")
HYBRID = ("qwen35", "qwen35_vision", "qwen35moe", "qwen3next", "nemotron_h", "nemotron35", "ling3",
          "qwen38")  # fmt: skip
F32 = Kind.F32
ANNOUNCE = ("num_nextn_predict_layers", "mtp_num_hidden_layers")


def said(path: Path) -> list[str]:
    return list(inspect_lines(path))


def kind(family: str) -> str:
    return "chained" if family in CHAINED else "reused"


def without_heads(tiny: Tiny, arch: str) -> Tiny:
    """The checkpoint that most converters would have seen."""
    n_layer = int(text_config(tiny)["num_hidden_layers"])
    for name in list(tiny.tensors):
        layer = re.search(r"\.layers\.(\d+)\.", canonical(name, n_layer, arch))
        if layer and int(layer[1]) >= n_layer:
            tiny.drop(name)
    return tiny


def unannounced(tiny: Tiny) -> Tiny:
    for config in (tiny.config, tiny.config.get("text_config", {})):
        for key in ANNOUNCE:
            config.pop(key, None)
    return tiny


@pytest.mark.parametrize("family", ALL)
def test_every_family_as_published(family: str, checkpoint: Folder) -> None:
    build, arch, n_heads = ALL[family]
    config, folder = text_config(build()), checkpoint(family)
    lines = said(folder)
    assert lines[0].startswith(f"{folder}: checkpoint of ")
    assert lines[0].endswith(f", llama.cpp architecture {arch}")
    sizes = f"{config['num_hidden_layers']} layers, width {config['hidden_size']}, vocabulary 320"
    runs = "runs in: mtp-chat and llama.cpp, after mtp-convert convert"
    memory = "hybrid memory" if family in HYBRID else "plain KV"
    if family in BESIDE:
        assert lines[1] == f"heads: one model (shared-kv), {sizes}"
        runs = "runs in: mtp-chat --heads, beside its target, after mtp-convert convert"
    elif n_heads:
        assert lines[1:3] == [f"target: {sizes}", f"heads: {n_heads} ({kind(family)}, {memory})"]
    elif family in APART:
        assert lines[1:3] == [f"target: {sizes}", "heads: none"]
        runs += ", without drafting heads"
    else:
        assert lines[1] == f"target: {sizes}"
        assert lines[2].startswith("heads: none (")
    assert runs in lines
    assert re.fullmatch(r"tensors: \d+, [\d.]+ \w+: .*BF16.*", lines[-1])
    assert not [line for line in lines if line.startswith("warning")]


@pytest.mark.parametrize("family", ALL)
def test_every_family_converted(family: str, converted: Convert) -> None:
    _, arch, n_heads = ALL[family]
    path = converted(family, Options(outtype="q8_0"))
    lines = said(path)
    assert lines[0].startswith(f"{path}: GGUF model, architecture {arch}, ")
    if family in BESIDE:
        assert lines[1:3] == [
            "heads: one model (shared-kv)", "runs in: mtp-chat --heads, beside its target"
        ]  # fmt: skip
    elif n_heads:
        assert lines[2].startswith(f"heads: {n_heads} ({kind(family)}), ")
        assert lines[3] == "runs in: mtp-chat, and llama.cpp with --spec-type draft-mtp"
    else:
        assert "heads: none" in lines[2]
        assert lines[3] == "runs in: mtp-chat and llama.cpp, without drafting heads"
    assert not [line for line in lines if line.startswith("warning")]


@pytest.mark.parametrize("family", WITH_HEADS)
def test_heads_that_config_json_does_not_announce(family: str, tmp_path: Path) -> None:
    build, arch, n_heads = FAMILIES[family]
    folder = write_checkpoint(tmp_path / "x", unannounced(build()))
    lines = said(folder)
    assert lines[2].startswith(f"heads: {n_heads} ({kind(family)}, ")
    assert lines[3] == "note: config.json announces no heads"
    plan = plan_checkpoint(open_checkpoint(folder), Options(pre="qwen2"))
    assert plan.metadata[f"{arch}.nextn_predict_layers"].value == n_heads


@pytest.mark.parametrize("family", WITH_HEADS)
def test_every_family_without_its_heads(family: str, converted: Convert, tmp_path: Path) -> None:
    build, arch, _ = FAMILIES[family]
    folder = write_checkpoint(tmp_path / "x", without_heads(build(), arch))
    lines = said(folder)
    assert lines[2] == "heads: none"
    assert re.fullmatch(r"warning: \S+ checkpoints have heads; here they are missing", lines[3])
    assert lines[4].endswith("after mtp-convert convert, without drafting heads")
    lines = said(converted(family, TARGET))
    assert lines[2].startswith("heads: none; mtp-convert graft adds a checkpoint's")
    assert re.fullmatch(r"warning: .+ models have heads; here they are missing", lines[3])
    assert lines[4] == "runs in: mtp-chat and llama.cpp, without drafting heads"


def test_a_head_file(converted: Convert, tmp_path: Path) -> None:
    target = converted("smollm", Options(outtype="q8_0"))
    heads = write_head_file(tmp_path / "heads.gguf", target, np.arange(64, dtype=np.int32))
    lines = said(heads)
    assert lines[0].startswith(f"{heads}: GGUF head file, architecture mimo2, ")
    assert lines[1].startswith("heads: 1 (reused), ")
    assert lines[2] == "for: tiny, width 64, vocabulary 320, pre_norm"
    assert lines[3] == "draft vocabulary: 64 ids"
    assert "runs in: mtp-chat --heads, beside its target" in lines


def test_heads_that_a_ggufs_metadata_hide(converted: Convert, tmp_path: Path) -> None:
    hidden = bytearray(converted("glm4moe").read_bytes())
    key = b"glm4moe.nextn_predict_layers"
    hidden[hidden.index(key) + len(key) + 4] = 0
    (tmp_path / "hidden.gguf").write_bytes(hidden)
    warning = "warning: block 3 holds a head that glm4moe.nextn_predict_layers does not announce"
    assert warning in said(tmp_path / "hidden.gguf")


def test_heads_that_a_ggufs_metadata_announce_and_the_file_lacks(tmp_path: Path) -> None:
    values = {"general.architecture": "glm4moe", "glm4moe.block_count": 2,
              "glm4moe.nextn_predict_layers": 1}  # fmt: skip
    tensors = [("token_embd.weight", (2, 32), F32, 0), ("blk.0.attn_norm.weight", (32,), F32, 256)]
    path = tmp_path / "x.gguf"
    path.write_bytes(encode_header(pairs(values), tensors, 32) + bytes(384))
    assert "warning: the metadata announces 1 head(s), the file holds none" in said(path)


def test_a_family_whole_says_context_size_formats_and_template(converted: Convert) -> None:
    lines = said(converted("glm4moe", Options(outtype="q8_0")))
    reader = GGUFReader(converted("glm4moe", Options(outtype="q8_0")))
    n = sum(int(tensor.n_elements) for tensor in reader.tensors)
    n_bytes = dict.fromkeys(("Q8_0", "F32", "F16", "BF16"), 0)
    for tensor in reader.tensors:
        n_bytes[tensor.tensor_type.name] += int(tensor.n_bytes)
    total = sum(n_bytes.values())
    assert "context: 512 tokens" in lines
    assert f"parameters: {n}" in lines
    (formats,) = (line for line in lines if line.startswith("quantization: "))
    assert formats.startswith(f"quantization: {8 * total / n:.2f} bits for each, by bytes ")
    assert f"{100 * n_bytes['Q8_0'] / total:.0f}% Q8_0" in formats
    assert "chat template: of its own, 53 characters" in lines


def test_a_checkpoint_says_the_same_before_it_is_converted(
    checkpoint: Folder, converted: Convert
) -> None:
    lines = said(checkpoint("qwen35")), said(converted("qwen35"))
    for start in ("context: ", "parameters: ", "chat template: "):
        first, second = ([line for line in each if line.startswith(start)] for each in lines)
        assert first == second
        assert len(first) == 1


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{{ '<|im_start|>' + m.role }}", "ChatML"),
        ("<|start_header_id|>", "Llama 3"),
        ("{{ '<|start|>' }}{{ '<|channel|>final' }}", "Harmony (gpt-oss)"),
        ("[INST] <<SYS>>", "Llama 2 or Mistral"),
        ("<start_of_turn>user", "Gemma"),
        ("{{ x }}", "of its own, 7 characters"),
    ],
)
def test_kinds_of_templates(template: str, kind: str) -> None:
    assert template_kind(template) == kind


def test_no_template_and_named_ones(tmp_path: Path) -> None:
    values = {"general.architecture": "llama", "llama.block_count": 1}
    tensors = [("token_embd.weight", (2, 32), F32, 0), ("blk.0.attn_norm.weight", (32,), F32, 256)]
    path = tmp_path / "x.gguf"
    path.write_bytes(encode_header(pairs(values), tensors, 32) + bytes(384))
    assert "chat template: none" in said(path)
    values |= {"tokenizer.chat_template": "<|im_start|>", "tokenizer.chat_template.tool_use": "t"}
    path.write_bytes(encode_header(pairs(values), tensors, 32) + bytes(384))
    assert "chat template: ChatML; also tool_use" in said(path)


def test_strip_takes_an_announcement_off(converted: Convert, tmp_path: Path) -> None:
    """Of heads that are not there, with blocks of theirs counted or not."""
    target, announced = converted("glm4moe", TARGET), tmp_path / "announced.gguf"
    plain = read_gguf(target)
    for n_blocks in (3, 4):
        metadata = dict(plain.pairs) | pairs(
            {"glm4moe.block_count": n_blocks, "glm4moe.nextn_predict_layers": 1}
        )
        taken = as_they_are(plain, plain.tensors)
        tensors = planned(taken, [], AS_IT_IS, Traits.of("glm4moe", metadata))
        write(Plan(metadata, tuple(tensors)), announced)
        lines = said(announced)
        assert lines[1].startswith("target: 3 layers")
        assert "warning: the metadata announces 1 head(s), the file holds none" in lines
        out = tmp_path / f"{n_blocks}.gguf"
        write(plan_strip(announced), out)
        assert out.read_bytes() == target.read_bytes()
        with pytest.raises(MtpError, match="holds no MTP heads"):
            plan_extract(announced)
        assert open_model(announced).fingerprint() == open_model(target).fingerprint()


def test_a_sidecar_of_llama_cpps(tmp_path: Path) -> None:
    """Its blocks begin where its target's end."""
    heads = parts(tiny.qwen35())[1].write(tmp_path / "mtp-x.gguf")
    lines = [*inspect_lines(heads)]
    assert lines[0].startswith(f"{heads}: GGUF head file, architecture qwen35")
    assert lines[1].startswith("heads: 1 (reused)")
    assert lines[2:4] == [
        f"for: 2 layers, width {tiny.N_EMBD}, vocabulary {tiny.N_VOCAB}",
        "runs in: mtp-chat --heads, beside its target; llama.cpp with --spec-type draft-mtp",
    ]
