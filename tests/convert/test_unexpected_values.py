"""Values of another type or size than is expected: one MtpError that names the key, at once.

Each kind has a case: GGUF keys of another type, counts that the file cannot hold, numbers of
hundreds of digits, text that is nested too deep, names that no file can have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import INDEX, open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.commands.output import is_ours
from mtp_convert.commands.pack import plan_pack
from mtp_convert.commands.trim import plan_trim
from mtp_convert.gguf.header import MAX_COUNT, read_gguf
from mtp_convert.gguf.metadata import encode_header, pair
from mtp_convert.gguf.plan import Plan
from tests.convert.checkpoints import N_VOCAB, write_checkpoint
from tests.convert.checkpoints_gemma4 import gemma4
from tests.convert.checkpoints_mtp import qwen35
from tests.convert.conftest import Convert
from tests.convert.heads import write_head_file
from tests.convert.test_bad_checkpoints import edit_config
from tests.convert.test_splits import made
from tests.convert.test_tekken import tekken

F32 = Options(outtype="f32")
MANY = np.array([1, 2], np.int32)
LARGE = np.array([2**63], np.uint64)


def rewrite(path: Path, pairs: Mapping[str, object], drop: str = "") -> Path:
    """The file with other values at some keys, and without a tensor."""
    file, raw = read_gguf(path), path.read_bytes()
    start = min(tensor.offset for tensor in file.tensors.values())
    changed = dict(file.pairs) | {key: pair(value) for key, value in pairs.items()}
    kept = [
        (tensor.name, tensor.shape, tensor.kind, tensor.offset - start)
        for tensor in file.tensors.values()
        if tensor.name != drop
    ]
    path.write_bytes(encode_header(changed, kept, 32) + raw[start:])
    return path


@pytest.fixture
def target(converted: Convert, tmp_path: Path) -> Path:
    path = tmp_path / "target.gguf"
    path.write_bytes(converted("smollm", F32).read_bytes())
    return path


@pytest.fixture
def heads(target: Path, tmp_path: Path) -> Path:
    return write_head_file(tmp_path / "heads.gguf", target)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", MANY, "expected text, found a list"),
        ("general.type", MANY, "expected text, found a list"),
        ("llama.block_count", "two", "expected a count, found two"),
        ("llama.block_count", 1.5, "expected a count, found 1.5"),
        ("llama.attention.head_count", MANY, "expected a count, found a list"),
        ("llama.attention.head_count", ["a"], "expected a count, found a list"),
        ("llama.attention.head_count_kv", "x", "expected a count, found x"),
        ("llama.attention.head_count_kv", LARGE, "expected a count, found 9223372036854775808"),
        ("llama.attention.key_length", float("inf"), "expected a count, found inf"),
        ("llama.context_length", MANY, "expected a count, found a list"),
        ("llama.rope.freq_base", "high", "expected a number, found high"),
        ("llama.rope.freq_base", MANY, "expected a number, found a list"),
        ("llama.rope.freq_base", float("nan"), "expected a number, found nan"),
    ],
)
def test_a_key_of_another_type(
    key: str, value: object, words: str, target: Path, heads: Path
) -> None:
    rewrite(target, {key: value})
    with pytest.raises(MtpError, match=rf"target\.gguf: {key}: {words}$"):
        plan_pack(target, heads)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("mimo2.attention.head_count", "expected a count, found a list"),
        ("mimo2.attention.key_length", "expected a count, found a list"),
        ("mimo2.rope.freq_base", "expected a number, found a list"),
        ("general.type", "expected text, found a list"),
    ],
)
def test_a_key_of_another_type_in_a_head_file(
    key: str, words: str, target: Path, heads: Path
) -> None:
    rewrite(heads, {key: MANY})
    with pytest.raises(MtpError, match=rf"heads\.gguf: {key}: {words}$"):
        plan_pack(target, heads)


def test_a_count_that_is_listed_for_every_layer(target: Path, heads: Path) -> None:
    wanted = made(plan_pack(target, heads))
    n_kv = read_gguf(target).count("llama.attention.head_count_kv")
    rewrite(target, {"llama.attention.head_count_kv": np.array([n_kv, n_kv], np.int32)})
    assert made(plan_pack(target, heads)) == wanted


def test_a_name_that_is_a_number(converted: Convert, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(converted("glm4moe", F32).read_bytes())
    assert ", 7" in next(inspect_lines(rewrite(path, {"general.name": 7})))
    named = plan_extract(rewrite(path, {"general.name": MANY})).metadata["mtp.trunk.name"]
    assert named.value == "model"


def test_who_wrote_a_file_is_no_question_of_types(target: Path) -> None:
    assert not is_ours(rewrite(target, {"mtp.written_by": MANY}))


@pytest.mark.parametrize("command", ["pack", "inspect"])
def test_more_layers_than_the_file_has(command: str, target: Path, heads: Path) -> None:
    """Of which a list would take hours and all of the memory."""
    rewrite(target, {"llama.block_count": MAX_COUNT})
    if command == "inspect":
        assert f"target: {MAX_COUNT} layers" in list(inspect_lines(target))[1]
        return
    with pytest.raises(MtpError, match=r"blk\.3\.attn_norm\.weight is missing"):
        plan_pack(target, heads)


def test_no_attention_heads(target: Path, heads: Path) -> None:
    for path, arch in ((target, "llama"), (heads, "mimo2")):
        rewrite(path, {f"{arch}.attention.head_count": 0})
    with pytest.raises(MtpError, match=r"llama\.attention\.head_count: expected at least one"):
        plan_pack(target, heads)
    rewrite(target, {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 0})
    rewrite(heads, {"mimo2.attention.head_count": 4})
    with pytest.raises(MtpError, match=r"attn_k\.weight: \d+ rows do not divide into 0 heads"):
        plan_pack(target, heads)


Planner = Callable[[Path, Path], object]


def plan_trimmed(target: Path, heads: Path) -> Plan:
    return plan_trim(heads, target, np.arange(N_VOCAB), 8, [1]).plan


@pytest.mark.parametrize("planner", [plan_pack, plan_trimmed])
@pytest.mark.parametrize(
    ("drop", "words"),
    [
        ("token_embd.weight", r"target\.gguf: token_embd\.weight is missing"),
        ("output.weight", r"heads\.gguf: output\.weight is missing"),
    ],
)
def test_a_tensor_that_is_missing(
    planner: Planner, drop: str, words: str, target: Path, heads: Path
) -> None:
    rewrite(target if "embd" in drop else heads, {}, drop)
    if planner is plan_trimmed and drop == "output.weight":
        planner(target, heads)  # a head file may share its target's
        return
    with pytest.raises(MtpError, match=words):
        planner(target, heads)


def test_heads_that_say_they_are_for_more_ids(target: Path, heads: Path) -> None:
    rewrite(heads, {"mtp.trunk.vocab_size": MAX_COUNT})
    for planner in (plan_pack, plan_trimmed):
        with pytest.raises(MtpError, match=f"for {MAX_COUNT} ids, the target has {N_VOCAB}"):
            planner(target, heads)


def test_a_block_of_more_digits_than_a_number_has(target: Path) -> None:
    file, raw = read_gguf(target), target.read_bytes()
    start = min(tensor.offset for tensor in file.tensors.values())
    renamed = {"blk.0.attn_norm.weight": f"blk.{'9' * 5000}.attn_norm.weight"}
    tensors = [
        (renamed.get(t.name, t.name), t.shape, t.kind, t.offset - start)
        for t in file.tensors.values()
    ]
    target.write_bytes(encode_header(file.pairs, tensors, 32) + raw[start:])
    assert list(inspect_lines(target))
    with pytest.raises(MtpError, match="holds no MTP heads"):
        plan_strip(target)


# ---- checkpoints


def plan(folder: Path) -> Plan:
    return plan_checkpoint(open_checkpoint(folder), Options())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny", qwen35())


@pytest.mark.parametrize(
    "key", ["rms_norm_eps", "rope_theta", "head_dim", "partial_rotary_factor", "hidden_size"]
)
def test_a_number_of_hundreds_of_digits(key: str, folder: Path) -> None:
    edit_config(folder, **{key: 10**400, "rope_parameters": None})
    with pytest.raises(MtpError, match=r"config\.json: "):
        plan(folder)


@pytest.mark.parametrize("key", ["linear_num_value_heads", "linear_num_key_heads"])
@pytest.mark.parametrize("value", [0, 1 << 30])
def test_heads_that_the_tensors_do_not_have(key: str, value: int, folder: Path) -> None:
    """Lists of that many rows would fill the memory before their shapes are compared."""
    edit_config(folder, **{key: value})
    with pytest.raises(MtpError):
        plan(folder)


def test_a_rotary_embedding_wider_than_any_head(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", gemma4())
    edit_config(folder, global_head_dim=MAX_COUNT)
    with pytest.raises(MtpError, match=f"{MAX_COUNT} rotary dimensions; expected 65536 at most"):
        plan(folder)


def test_a_recommendation_of_hundreds_of_digits(folder: Path) -> None:
    recommended = json.dumps({"top_k": 10**400, "temperature": -(10**400), "top_p": 0.5})
    (folder / "generation_config.json").write_text(recommended)
    found = plan(folder)
    assert found.metadata["general.sampling.top_p"].value == 0.5
    left_out = [note for note in found.notes if "is left out" in note]
    assert [note.split(": ")[1] for note in left_out] == ["top_k", "temperature"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_nested_too_deep(name: str, folder: Path) -> None:
    (folder / name).write_text("[" * 200_000)
    with pytest.raises(MtpError, match=r"tiny(: one of the tokenizer's files|/tokenizer\.json): "):
        plan(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"default_vocab_size": 10**400}, "default_vocab_size: expected a count, found 1000"),
        ({"default_vocab_size": float("inf")}, "default_vocab_size: expected a count, found inf"),
        ({"default_num_special_tokens": "9"}, "default_num_special_tokens: expected a count"),
        ({"default_num_special_tokens": 1 << 40, "default_vocab_size": (1 << 40) + 300},
         "default_vocab_size: expected a count"),
    ],
)  # fmt: skip
def test_a_tekken_of_more_ids_than_fit(changes: dict[str, Any], words: str, folder: Path) -> None:
    data = tekken()
    data["config"] |= changes
    (folder / "tokenizer.json").unlink()
    (folder / "tekken.json").write_text(json.dumps(data))
    with pytest.raises(MtpError, match=rf"tekken\.json: {words}"):
        plan(folder)


def test_an_index_of_names_that_no_file_can_have(folder: Path) -> None:
    for name in ("x" * 10_000, "a\0b"):
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": f"{name}.safetensors"}}))
        for shard in folder.glob("*.safetensors"):
            shard.unlink()
        with pytest.raises(MtpError, match=r"1 shard\(s\) missing, the first is ") as caught:
            open_checkpoint(folder)
        assert len(str(caught.value)) < 300 + len(str(folder))


def test_a_target_whose_norms_have_other_shapes(converted: Convert, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", qwen35(), n_shards=1)
    target = tmp_path / "target.gguf"
    target.write_bytes(converted("qwen35", Options("target", "f32")).read_bytes())
    file, raw = read_gguf(target), target.read_bytes()
    start = min(tensor.offset for tensor in file.tensors.values())
    tensors = [
        (t.name, (8,) if t.name == "output_norm.weight" else t.shape, t.kind, t.offset - start)
        for t in file.tensors.values()
    ]
    target.write_bytes(encode_header(file.pairs, tensors, 32) + raw[start:])
    with pytest.raises(MtpError, match=r"output_norm\.weight differs from .*target\.gguf's"):
        plan_graft(target, folder)
