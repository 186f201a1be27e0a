"""How a checkpoint can be laid out: one file or many, FP8 by row or rank, tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFReader, TokenType

from mtp_cli.engine import Engine, Sampling
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import INDEX, open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import (
    EMBD,
    N_HEAD,
    N_VOCAB,
    QWEN2_RULE,
    WIDTH,
    Tiny,
    llama,
    mistral,
    qwen3,
    smollm,
    write_checkpoint,
    write_shard,
    write_tokenizer,
)
from tests.convert.checkpoints_meta import piece
from tests.convert.checkpoints_more import V_WIDTH, mimo2
from tests.convert.expectation import e4m3
from tests.convert.test_families import values

Floats = npt.NDArray[np.float32]


def converted(folder: Path, out: Path) -> dict[str, Floats]:
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="f32")), out)
    return {t.name: values(t) for t in GGUFReader(out).tensors}


def test_one_file_without_an_index(tmp_path: Path) -> None:
    tiny = llama()
    folder = write_checkpoint(tmp_path / "sharded", tiny)
    sharded = converted(folder, tmp_path / "a.gguf")
    for file in folder.glob("model*"):
        file.unlink()
    write_shard(folder / "model.safetensors", tiny.tensors, tiny.formats)
    single = converted(folder, tmp_path / "b.gguf")
    assert sharded.keys() == single.keys()
    assert all(np.array_equal(sharded[name], single[name]) for name in single)


@pytest.mark.parametrize("stored", ["F16", "F32", "F64"])
def test_other_floating_point_formats(stored: str, tmp_path: Path) -> None:
    tiny = llama()
    tiny.formats = dict.fromkeys(tiny.formats, stored)
    found = converted(write_checkpoint(tmp_path / "x", tiny), tmp_path / "x.gguf")
    wanted = tiny.tensors["model.embed_tokens.weight"]
    if stored == "F16":
        wanted = wanted.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found["token_embd.weight"], wanted)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    tiny = llama()
    tiny.formats["model.embed_tokens.weight"] = "I64"
    with pytest.raises(MtpError, match=r"embed_tokens\.weight: cannot convert number format I64"):
        converted(write_checkpoint(tmp_path / "x", tiny), tmp_path / "x.gguf")


def test_heads_in_a_file_that_the_index_forgets(tmp_path: Path) -> None:
    tiny = mimo2()
    whole = converted(write_checkpoint(tmp_path / "whole", tiny), tmp_path / "a.gguf")
    heads = Tiny({})
    for name in [name for name in tiny.tensors if name.startswith("model.mtp.")]:
        heads.tensors[name], heads.formats[name] = tiny.tensors[name], tiny.formats[name]
    tiny.drop("model.mtp.")
    folder = write_checkpoint(tmp_path / "apart", tiny)
    write_shard(folder / "model_mtp.safetensors", heads.tensors, heads.formats)
    assert "mtp" not in (folder / INDEX).read_text()
    apart = converted(folder, tmp_path / "b.gguf")
    assert all(np.array_equal(whole[name], apart[name]) for name in whole)


def test_fp8_with_a_scale_for_each_row(tmp_path: Path) -> None:
    tiny, name = llama(), "model.layers.0.mlp.down_proj.weight"
    shape = tiny.tensors[name].shape
    codes = np.random.default_rng(2).integers(0, 0x50, shape, np.uint8)
    scale = np.linspace(0.1, 0.2, shape[0], dtype=np.float32)[:, None]
    tiny.put(name, codes, "F8_E4M3")
    tiny.put(name + "_scale", scale, "F32")
    found = converted(write_checkpoint(tmp_path / "x", tiny), tmp_path / "x.gguf")
    wanted = np.vectorize(e4m3, otypes=[np.float32])(codes) * scale
    np.testing.assert_array_equal(found["blk.0.ffn_down.weight"], wanted)


@pytest.mark.parametrize("n_ranks", [1, 4, 8])
def test_a_fused_qkv_in_the_order_of_its_ranks(n_ranks: int, tmp_path: Path) -> None:
    """MiMo-V2.5: each rank has its share of q, k and v, and starts new blocks of scales."""
    tiny, block = mimo2(), 16
    n_kv = 4
    sizes = [N_HEAD * WIDTH, n_kv * WIDTH, n_kv * V_WIDTH]
    layer = "model.mtp.layers.0.self_attn."
    for part in "qkv":
        tiny.drop(f"{layer}{part}_proj.")
    random = np.random.default_rng(3)
    shares, wanted = [], [[], [], []]  # type: ignore[var-annotated]
    scales = []
    for _ in range(n_ranks):
        each = sum(sizes) // n_ranks
        codes = random.integers(0, 0x50, (each, EMBD), np.uint8)
        n_blocks = (-(-each // block), EMBD // block)
        scale = random.uniform(0.1, 0.2, n_blocks).astype(np.float32)
        full = np.kron(scale, np.ones((block, block), np.float32))[:each]
        plain = np.vectorize(e4m3, otypes=[np.float32])(codes) * full
        cuts = np.cumsum([size // n_ranks for size in sizes])[:-1]
        for rows, part_rows in zip(np.split(plain, cuts), wanted, strict=True):
            part_rows.append(rows)
        shares.append(codes)
        scales.append(scale)
    tiny.put(layer + "qkv_proj.weight", np.concatenate(shares), "F8_E4M3")
    tiny.put(layer + "qkv_proj.weight_scale_inv", np.concatenate(scales), "F32")
    found = converted(write_checkpoint(tmp_path / "x", tiny), tmp_path / "x.gguf")
    expected = np.concatenate([np.concatenate(rows) for rows in wanted])
    np.testing.assert_array_equal(found["blk.3.attn_qkv.weight"], expected)


def test_experts_in_a_format_of_four_bits_are_refused(tmp_path: Path) -> None:
    tiny = mimo2()
    tiny.config["quantization_config"]["store_dtype"] = "mxfp4"
    with pytest.raises(MtpError, match="experts stored as MXFP4"):
        converted(write_checkpoint(tmp_path / "x", tiny), tmp_path / "x.gguf")


def test_a_sentencepiece_model(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", smollm(), tokenizer=False)
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [("\u2581", -1.0, 1), ("t", -2.0, 1), ("h", -3.0, 1), ("th", -0.5, 1)]
    trainer = b"\x12\x02\x18\x02"  # another field of the file: of BPE
    (folder / "tokenizer.model").write_bytes(b"".join(piece(*p) for p in pieces) + trainer)
    settings = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_bos_token": True,
        "added_tokens_decoder": {"300": {"content": "<tool>", "special": False}},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    out = tmp_path / "x.gguf"
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="f32")), out)
    fields = GGUFReader(out).fields
    texts = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert len(texts) == N_VOCAB
    assert texts[262] == "th"
    assert texts[300] == "<tool>"
    assert kinds[:4] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.BYTE]
    assert (kinds[300], kinds[299]) == (TokenType.USER_DEFINED, TokenType.UNUSED)
    assert fields["tokenizer.ggml.scores"].contents()[262] == -0.5
    with Engine.open(out, n_ctx=64, n_gpu_layers=0) as engine:
        assert engine.tokenize("th", add_special=True, parse_special=False) == [1, 259, 262]


def test_a_tokenizer_that_is_neither_kind(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", smollm())
    (folder / "tokenizer.model").write_bytes(b"not a protobuf")
    data = json.loads((folder / "tokenizer.json").read_text())
    data["pre_tokenizer"] = {"type": "Metaspace"}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(MtpError, match="not a SentencePiece model"):
        open_and_plan(folder)
    (folder / "tokenizer.model").unlink()
    with pytest.raises(MtpError, match="neither byte-level BPE nor"):
        open_and_plan(folder)
    data["model"]["type"] = "Unigram"
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(MtpError, match="expected a BPE model"):
        open_and_plan(folder)


def open_and_plan(folder: Path) -> str:
    plan = plan_checkpoint(open_checkpoint(folder), Options())
    return str(plan.metadata["tokenizer.ggml.pre"].value)


LLAMA3_RULE = QWEN2_RULE.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
QWEN35_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("rule", "name"), [(QWEN2_RULE, "qwen2"), (LLAMA3_RULE, "llama-bpe"), (QWEN35_RULE, "qwen35")]
)
def test_pre_tokenizers_are_known_by_their_rules(rule: str, name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", smollm())
    write_tokenizer(folder, rule)
    assert open_and_plan(folder) == name


@pytest.mark.parametrize("line_ends", [r"\r\n", "\r\n"])
def test_deepseeks_pre_tokenizer_has_three_steps(line_ends: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", smollm())
    data = json.loads((folder / "tokenizer.json").read_text())
    rules = [
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^EOL\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[EOL]*|\s*[EOL]+|\s+(?!\S)|\s+",
    ]
    data["pre_tokenizer"]["pretokenizers"] = [
        {"type": "Split", "pattern": {"Regex": rule.replace("EOL", line_ends)}} for rule in rules
    ] + [{"type": "ByteLevel", "use_regex": False}]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert open_and_plan(folder) == "deepseek-v3"


def test_smollms_pre_tokenizer_has_two_steps(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", smollm())
    data = json.loads((folder / "tokenizer.json").read_text())
    data["pre_tokenizer"]["pretokenizers"] = [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    ]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert open_and_plan(folder) == "smollm"


def test_the_chat_template_and_special_tokens_come_along(tmp_path: Path) -> None:
    plan = plan_checkpoint(open_checkpoint(write_checkpoint(tmp_path / "x", smollm())), Options())
    template = plan.metadata["tokenizer.chat_template"].value
    assert template == "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    texts = plan.metadata["tokenizer.ggml.tokens"].value
    assert texts[plan.metadata["tokenizer.ggml.eos_token_id"].value] == "<|im_end|>"
    assert texts[-1] == f"[PAD{N_VOCAB - 1}]"


@pytest.mark.parametrize(
    "change",
    [{"added_tokens": [{}]}, {"added_tokens": 3}, {"model": {"vocab": 7}}, {"pre_tokenizer": [1]}],
)
def test_a_tokenizer_with_values_of_other_kinds(change: dict[str, object], tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", smollm())
    data = json.loads((folder / "tokenizer.json").read_text()) | change
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(MtpError, match="tokenizer"):
        open_and_plan(folder)


def with_biases() -> Tiny:
    """A Llama with attention_bias and mlp_bias."""
    tiny = mistral()
    tiny.config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
                    "attention_bias": True, "mlp_bias": True}  # fmt: skip
    for name in [name for name in tiny.tensors if name.endswith("_proj.weight")]:
        tiny.vector(name.replace(".weight", ".bias"), tiny.tensors[name].shape[0])
    return tiny


def test_biases_of_every_matrix(tmp_path: Path) -> None:
    tiny = with_biases()
    found = converted(write_checkpoint(tmp_path / "x", tiny), tmp_path / "x.gguf")
    layer = "model.layers.1."
    for name, to in (("mlp.gate", "ffn_gate"), ("mlp.up", "ffn_up"), ("mlp.down", "ffn_down"),
                     ("self_attn.v", "attn_v"), ("self_attn.o", "attn_output")):  # fmt: skip
        wanted = tiny.tensors[f"{layer}{name}_proj.bias"]
        np.testing.assert_array_equal(found[f"blk.1.{to}.bias"], wanted)
    halves = tiny.tensors[layer + "self_attn.q_proj.bias"].reshape(N_HEAD, 2, WIDTH // 2)
    np.testing.assert_array_equal(
        found["blk.1.attn_q.bias"], halves.transpose(0, 2, 1).ravel()
    )  # as the rows of its matrix
    with Engine.open(tmp_path / "x.gguf", n_ctx=64, n_gpu_layers=0) as engine:
        run = engine.generate([1, 2, 3], Sampling(temperature=0.0), max_tokens=4, depth=0)
        assert len(list(run)) == 4


def test_a_bias_that_no_graph_adds_is_refused(tmp_path: Path) -> None:
    """Qwen3's attention_bias: llama.cpp's graph has q's, k's and v's, but not the output's."""
    tiny = qwen3()
    tiny.vector("model.layers.0.self_attn.o_proj.bias", EMBD)
    with pytest.raises(MtpError, match=r"o_proj\.bias: no tensor that Qwen3 is known to have"):
        open_and_plan(write_checkpoint(tmp_path / "x", tiny))


@pytest.mark.oracle
@pytest.mark.filterwarnings("default")
def test_biases_as_transformers_adds_them(tmp_path: Path) -> None:
    from tests.convert.test_oracle import compare_logits, without_fp8

    compare_logits(without_fp8(with_biases()), tmp_path, nextn=False)
