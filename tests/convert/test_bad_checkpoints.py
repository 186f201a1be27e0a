"""Every way a checkpoint can be wrong gives one line that names the place, and writes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import INDEX, SINGLE, open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from tests.convert.checkpoints import write_checkpoint, write_shard
from tests.convert.checkpoints_mtp import deepseek3, glm4moe, qwen35

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny", glm4moe())


def convert(folder: Path, options: Options | None = None) -> None:
    plan_checkpoint(open_checkpoint(folder), options or Options())


def edit_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def edit_header(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = file.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + n])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + n :])


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_a_missing_shard(folder: Path) -> None:
    (folder / SHARD).unlink()
    with pytest.raises(MtpError, match=f"1 shard.s. missing, the first is {SHARD}"):
        convert(folder)


def test_an_extra_shard(folder: Path) -> None:
    shutil.copy(folder / SHARD, folder / "model-00003-of-00002.safetensors")
    convert(folder)  # the same bytes once more
    raw = bytearray((folder / SHARD).read_bytes())
    raw[-1] ^= 1
    (folder / "model-00003-of-00002.safetensors").write_bytes(raw)
    with pytest.raises(MtpError, match=rf"00003-of-00002\S+: \S+: another tensor than in {SHARD}"):
        convert(folder)


def test_an_index_that_names_a_tensor_no_shard_holds(folder: Path) -> None:
    edit_index(folder, lambda names: names.update({"model.ghost.weight": SHARD}))
    with pytest.raises(MtpError, match=r"model\.ghost\.weight: named by .*, in none of the"):
        convert(folder)


def test_an_index_that_puts_a_tensor_elsewhere(folder: Path) -> None:
    def move(names: dict[str, str]) -> None:
        other = {*names.values()} - {names["model.norm.weight"]}
        names["model.norm.weight"] = other.pop()

    wanted = open_checkpoint(folder).tensors
    edit_index(folder, move)
    assert open_checkpoint(folder).tensors == wanted


def test_an_index_that_reaches_outside_the_folder(folder: Path) -> None:
    edit_index(folder, lambda names: names.update({"x": "../../etc/passwd"}))
    with pytest.raises(MtpError, match="is not a file name"):
        convert(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_that_is_no_index(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)
    with pytest.raises(MtpError, match=r"index\.json"):
        convert(folder)


def test_a_truncated_shard(folder: Path) -> None:
    raw = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(raw[:-100])
    with pytest.raises(MtpError, match="is it truncated"):
        convert(folder)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "found 0 bytes"),
        (b"1234567", "found 7 bytes"),
        (b"\xff" * 8 + b"{}", "header of 18446744073709551615 bytes"),
        ((200_000_000).to_bytes(8, "little") + b"{}", "header of 200000000 bytes"),
        ((2).to_bytes(8, "little") + b"[]", "expected an object, found list"),
        ((2).to_bytes(8, "little") + b"{x", "not valid JSON"),
        ((2).to_bytes(8, "little") + b"\xff\xfe", "not valid JSON"),
        ((10).to_bytes(8, "little") + b'{"a":1}   ', "a: expected dtype, shape"),
        ((2).to_bytes(8, "little") + b"{}extra", "5 bytes after the last tensor"),
        ((13).to_bytes(8, "little") + b'{"a":1,"a":2}', "a appears twice"),
    ],
)
def test_a_header_that_is_no_header(folder: Path, raw: bytes, message: str) -> None:
    (folder / SHARD).write_bytes(raw)
    with pytest.raises(MtpError, match=message) as caught:
        convert(folder)
    assert SHARD in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "F4_E2M1"}, "number format 'F4_E2M1' is not known"),
        ({"dtype": 3}, "number format 3 is not known"),
        ({"shape": [64.0]}, "not a list of sizes"),
        ({"shape": [-64]}, "not a list of sizes"),
        ({"shape": "64"}, "not a list of sizes"),
        ({"shape": [1 << 61, 1 << 61]}, "takes .* bytes, the offsets span"),
        ({"shape": [65]}, "takes 130 bytes, the offsets span 128"),
        ({"data_offsets": [0, 1 << 50]}, "lie outside"),
        ({"data_offsets": [128, 0]}, "lie outside"),
        ({"data_offsets": [0]}, "are not two offsets"),
    ],
)
def test_a_tensor_whose_description_is_wrong(
    folder: Path, fields: dict[str, Any], message: str
) -> None:
    name = "model.norm.weight"
    file = folder / json.loads((folder / INDEX).read_text())["weight_map"][name]
    edit_header(file, lambda header: header[name].update(fields))
    with pytest.raises(MtpError, match=message) as caught:
        convert(folder)
    assert name in str(caught.value)


def test_overlapping_tensors_and_gaps(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = {"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)}
    (tmp_path / "config.json").write_text("{}")
    for offsets, message in (([0, 16], "b: overlaps"), ([16, 32], "")):
        write_shard(file, tensors, {"a": "F32", "b": "F32"})
        edit_header(file, lambda header, o=offsets: header["b"].update(data_offsets=o))  # type: ignore[misc]
        if message:
            with pytest.raises(MtpError, match=message):
                open_checkpoint(tmp_path)
        else:
            assert set(open_checkpoint(tmp_path).tensors) == {"a", "b"}
    edit_header(file, lambda header: header["a"].update(shape=[3], data_offsets=[0, 12]))
    with pytest.raises(MtpError, match="b: a gap of 4 bytes"):
        open_checkpoint(tmp_path)


def test_shapes_that_contradict_the_config(folder: Path) -> None:
    edit_config(folder, intermediate_size=100)
    with pytest.raises(MtpError, match=r"blk\.0\.ffn_gate\.weight .*: expected \(100, 64\)") as e:
        convert(folder)
    assert "found (96, 64)" in str(e.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 300}, r"token_embd\.weight from .*: expected \(300, 64\)"),
        ({"hidden_size": 32}, r"expected \(320, 32\)"),
        ({"n_routed_experts": 5}, r"experts\.4\.gate_proj\.weight is missing"),
        ({"n_routed_experts": 3}, r"expected \(3, 64\)"),
        ({"num_hidden_layers": 5}, r"model\.layers\.4\.\S+ is missing"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": "three"}, "expected a count, found three"),
        ({"num_hidden_layers": -1}, "expected a count, found -1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0"),
        ({"architectures": ["HYV4ForCausalLM"]}, "Hy4: .*drops its heads, so that nothing runs"),
        ({"architectures": ["ExaoneMoeForCausalLM"]}, "K-EXAONE: .*has no graph for them"),
        ({"architectures": ["FooForCausalLM"]}, "FooForCausalLM: no family of mtp-convert"),
        ({"architectures": None}, "none named"),
        ({"rope_theta": "x"}, "unexpected kind"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": []}}, "unexpected kind"),
        ({"max_position_embeddings": 1 << 40}, "unexpected kind"),
        ({"norm_topk_prob": {}}, "unexpected kind"),
        ({"norm_topk_prob": "yes"}, "norm_topk_prob: .*expected true or false, found yes"),
        ({"max_position_embeddings": "8192"}, "expected an integer, found 8192"),
        ({"num_experts_per_tok": [2]}, "num_local_experts|num_experts_per_tok: .*an integer"),
        ({"n_group": 1.0}, "n_group: .*an integer, found 1.0"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, change: dict[str, Any], message: str) -> None:
    edit_config(folder, **change)
    with pytest.raises(MtpError, match=message):
        convert(folder)


def test_a_tensor_that_no_rule_knows_is_refused_not_dropped(tmp_path: Path) -> None:
    tiny = qwen35()
    tiny.matrix("model.layers.1.surprise.weight", 4, 4)
    folder = write_checkpoint(tmp_path / "x", tiny)
    with pytest.raises(MtpError, match=r"surprise\.weight: no tensor that Qwen3\.5 is known to"):
        convert(folder)


NAME = "model.layers.1.self_attn.o_proj.weight"


def test_fp8_without_its_scales(tmp_path: Path) -> None:
    tiny = deepseek3()
    tiny.drop(NAME + "_scale_inv")
    with pytest.raises(MtpError, match=f"{NAME}: FP8 without {NAME}_scale_inv"):
        convert(write_checkpoint(tmp_path / "x", tiny))


def test_fp8_with_scales_of_another_shape(tmp_path: Path) -> None:
    tiny = deepseek3()
    tiny.put(NAME + "_scale_inv", np.ones((1, 9), np.float32), "F32")
    with pytest.raises(MtpError, match=r"scale_inv: \(1, 9\) scales for \(64, 64\); expected"):
        convert(write_checkpoint(tmp_path / "x", tiny))


def test_heads_that_the_config_announces_and_the_shards_lack(tmp_path: Path) -> None:
    tiny = glm4moe()
    tiny.drop("model.layers.3.")
    folder = write_checkpoint(tmp_path / "x", tiny)
    plan = plan_checkpoint(open_checkpoint(folder), Options())
    assert plan.notes == ("config.json announces 1 head(s), the shards hold none",)
    assert plan.metadata["glm4moe.block_count"].value == 3
    with pytest.raises(MtpError, match=r"GLM-4\.5: the checkpoint holds no MTP heads"):
        convert(folder, Options("heads"))


def test_half_a_head_is_an_error(tmp_path: Path) -> None:
    tiny = glm4moe()
    tiny.drop("model.layers.3.eh_proj.weight")
    with pytest.raises(MtpError, match=r"layers\.3\.eh_proj\.weight is missing"):
        convert(write_checkpoint(tmp_path / "x", tiny))


def test_a_tokenizer_larger_than_the_vocabulary(tmp_path: Path) -> None:
    tiny = glm4moe()
    folder = write_checkpoint(tmp_path / "x", tiny)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"]["the"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(MtpError, match=r"'the' has id 5000, .* vocab_size is 320"):
        convert(folder)


def test_an_unknown_pre_tokenizer_is_named_by_the_user(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", glm4moe())
    data = json.loads((folder / "tokenizer.json").read_text())
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "[a-z]+"
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(MtpError, match="name it with --pre"):
        convert(folder)
    plan = plan_checkpoint(open_checkpoint(folder), Options(pre="glm4"))
    assert plan.metadata["tokenizer.ggml.pre"].value == "glm4"


def test_a_folder_without_tokenizer_is_noted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", qwen35(), tokenizer=False)
    plan = plan_checkpoint(open_checkpoint(folder), Options())
    assert plan.metadata["tokenizer.ggml.model"].value == "no_vocab"
    assert plan.metadata["qwen35.vocab_size"].value == 320
    assert "no tokenizer in the folder: the file will know ids only" in plan.notes


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_files_that_are_not_json(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe{")
    with pytest.raises(MtpError, match=f"{name}: not valid JSON"):
        convert(folder)


def test_no_folder_and_no_shards(tmp_path: Path) -> None:
    with pytest.raises(MtpError, match="nowhere: No such file or directory"):
        convert(tmp_path / "nowhere")
    with pytest.raises(MtpError, match="No such file"):
        convert(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MtpError, match="holds neither"):
        convert(tmp_path)


def test_shards_without_an_index(folder: Path) -> None:
    wanted = open_checkpoint(folder).tensors
    (folder / INDEX).unlink()
    assert open_checkpoint(folder).tensors == wanted
    (folder / SHARD).unlink()
    with pytest.raises(MtpError, match=f"1 shard.s. missing, the first is {SHARD}"):
        open_checkpoint(folder)


def test_two_series_of_shards_without_an_index(folder: Path) -> None:
    (folder / INDEX).unlink()
    shutil.copy(folder / SHARD, folder / "model-00001-of-00001.safetensors")
    with pytest.raises(MtpError, match="several series of shards"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["model-00001-of-00001.safetensors", "weights.safetensors"])
def test_one_file_of_another_name(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "x", qwen35(), n_shards=1)
    wanted = {n: entry.shape for n, entry in open_checkpoint(folder).tensors.items()}
    (folder / INDEX).unlink()
    (folder / "model-00001-of-00001.safetensors").rename(folder / name)
    (folder / "adapter_model.safetensors").write_bytes(b"of no use here")
    assert {n: e.shape for n, e in open_checkpoint(folder).tensors.items()} == wanted


def test_an_index_left_behind(folder: Path) -> None:
    """By a merge into one file, or into shards of other names; transformers loads both."""
    names = open_checkpoint(folder).tensors.keys()
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    tiny = glm4moe()
    write_shard(folder / SINGLE, tiny.tensors, tiny.formats)
    assert open_checkpoint(folder).tensors.keys() == names
    (folder / SINGLE).rename(folder / "model-00001-of-00001.safetensors")
    assert open_checkpoint(folder).tensors.keys() == names
    (folder / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(MtpError, match=f"2 shard.s. missing, the first is {SHARD}"):
        open_checkpoint(folder)


def test_a_pointer_of_git_lfs(folder: Path) -> None:
    (folder / SHARD).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(MtpError, match=f"{SHARD}: a Git LFS pointer; git lfs pull"):
        open_checkpoint(folder)
