"""Whatever file a user names, opening it ends in an engine or in one MtpError line naming the file.

Files are opened in this very process: it must live on, though llama.cpp aborts on some of them.
The named cases were crashes once, found by mutating every key and tensor of the tiny models.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtp_cli import head_file
from mtp_cli.engine.files import gguf_header, independent_heads, preflight
from mtp_cli.errors import MtpError
from tests.engine import tiny
from tests.engine.conftest import Files
from tests.engine.opening import refusal, runs

Change = Callable[[tiny.Spec], object]


# Files that are no GGUF, or not a whole one


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.gguf") == "No such file or directory"
    assert refusal(tmp_path).startswith("Is a directory without a GGUF or a checkpoint; ")
    (tmp_path / "empty.gguf").touch()
    assert refusal(tmp_path / "empty.gguf") == "the file is empty; get it again"
    os.mkfifo(tmp_path / "pipe.gguf")
    assert refusal(tmp_path / "pipe.gguf") == "not a regular file"
    unreadable = tmp_path / "unreadable.gguf"
    unreadable.symlink_to(unreadable)
    assert refusal(unreadable) == "Too many levels of symbolic links"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"llama.pooling_type": 3},
            "an embedding model (pooling_type last), which was not",
        ),
        ({"llama.pooling_type": 1}, "an embedding model (pooling_type mean), which was not"),
        ({"llama.pooling_type": 4}, "a reranker (pooling_type rank), which was not trained"),
        ({"llama.attention.causal": False}, "its attention looks ahead (llama.attention.causal"),
        ({"general.type": "adapter"}, "a LoRA adapter; merge it into its model"),
        ({"general.type": "imatrix"}, "statistics for quantizing a model, without its weights"),
        ({"general.type": "vocab"}, "a vocabulary without weights; give the model's GGUF"),
        ({"general.architecture": "controlvector"}, "a control vector; give the GGUF of the model"),
    ],
)
def test_files_that_do_not_write(keys: dict[str, object], line: str, tmp_path: Path) -> None:
    """llama.cpp runs the first of them as well as any, and what they write is noise."""
    spec = tiny.llama()
    spec.keys |= keys
    spec.architecture = str(keys.get("general.architecture", spec.architecture))
    spec.keys.pop("general.architecture", None)
    assert refusal(spec.write(tmp_path / "m.gguf")).startswith(line)


@pytest.mark.parametrize("keys", [{"llama.pooling_type": 0}, {"llama.attention.causal": True}])
def test_files_that_say_that_they_do_run(keys: dict[str, object], tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys |= keys
    assert runs(spec.write(tmp_path / "m.gguf"))


def test_a_name_that_is_not_utf8(tiny_file: Files, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.gguf"))
    path.write_bytes(tiny_file("llama").read_bytes())
    assert runs(path)
    path.write_bytes(b"GGUF")
    assert refusal(path).startswith("truncated")


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (b"GGML" + bytes(60), "not a GGUF file (it starts with b'GGML'); "),
        (b"\x7fELF" + bytes(60), "not a GGUF file (it starts with b'\\x7fELF'); "),
        (b"GGUF", "truncated: a GGUF header has 24 bytes, found 4; "),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "GGUF version 1; versions 2 and 3 can be read: "),
        (struct.pack("<4sIQQ", b"GGUF", 4, 0, 0), "GGUF version 4; versions 2 and 3 can be read: "),
        (
            struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
            "a big-endian GGUF; only little-endian files can be read: ",
        ),
    ],
)
def test_files_that_are_no_gguf(tmp_path: Path, start: bytes, line: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(start)
    assert refusal(path).startswith(line)


@pytest.mark.parametrize("n_tensors", [0, 1, 2**31, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("n_keys", [0, 2**40, 2**64 - 1])
def test_headers_with_absurd_counts(tmp_path: Path, n_tensors: int, n_keys: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, n_tensors, n_keys) + bytes(64))
    with pytest.raises(MtpError, match=f"^{path}: "):
        preflight.examine(path)


@pytest.mark.parametrize("length", [2**20, 2**40, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("kind", [8, 9])
def test_keys_with_absurd_lengths(tmp_path: Path, length: int, kind: int) -> None:
    path = tmp_path / "model.gguf"
    name = struct.pack("<Q", 3) + b"key" + struct.pack("<I", kind)
    value = (struct.pack("<I", 4) if kind == 9 else b"") + struct.pack("<Q", length)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + name + value + bytes(64))
    with pytest.raises(MtpError, match=f"^{path}: the GGUF header is damaged"):
        preflight.examine(path)


def test_truncated_at_any_offset(tiny_file: Files, tmp_path: Path) -> None:
    """All of it is looked at before llama.cpp is: here directly, the last few as a user would."""
    whole = tiny_file("llama").read_bytes()
    path = tmp_path / "model.gguf"
    n_header = gguf_header.read_header(tiny_file("llama")).tensors["token_embd.weight"].offset
    offsets = [*range(24, n_header, 211), *range(n_header, len(whole), 7001), len(whole) - 1]
    for offset in offsets:
        path.write_bytes(whole[:offset])
        with pytest.raises(MtpError, match=f"^{path}: (the GGUF header is damaged|truncated: )"):
            gguf_header.read_header(path)
    for offset in (25, n_header // 2, n_header, len(whole) - 1):
        path.write_bytes(whole[:offset])
        assert refusal(path).startswith(("the GGUF header is damaged", "truncated: "))


def test_random_bytes_in_the_header(tiny_file: Files, tmp_path: Path) -> None:
    """A few of the thousands that were tried; the child that examines them is slow to start."""
    whole, rng = tiny_file("llama").read_bytes(), np.random.default_rng(51)
    path = tmp_path / "model.gguf"
    n_run = 0
    for _ in range(5):
        damaged = bytearray(whole)
        for position in rng.integers(24, 9000, 2):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        n_run += runs(path)
    assert n_run < 5


# GGUFs that llama.cpp cannot run


def _set(key: str, value: object) -> Change:
    return lambda spec: spec.keys.update({key: value})


def _drop(tensor: str) -> Change:
    return lambda spec: spec.tensors.pop(tensor)


CRASHERS: dict[str, tuple[Callable[[], tiny.Spec], Change, str]] = {
    "no window layer": (
        tiny.mimo2,
        _set("mimo2.attention.sliding_window_pattern", [False] * 5),
        "GGML_ASSERT",
    ),
    "zero heads": (
        tiny.llama,
        _set("llama.attention.head_count", 0),
        "",
    ),
    "more heads than blocks": (
        tiny.mimo2,
        _set("mimo2.nextn_predict_layers", 6),
        "GGML_ASSERT(hparams.n_layer_nextn <= hparams.n_layer_all)",
    ),
    "nothing but heads": (
        tiny.mimo2,
        _set("mimo2.nextn_predict_layers", 5),
        "all of its blocks are heads; there is no target",
    ),
    "a head without a layer": (
        tiny.mimo2,
        _drop("blk.4.ffn_up.weight"),
        "blk.4.ffn_up.weight is missing",
    ),
    "a head without its own norms": (tiny.mimo2, _drop("blk.2.nextn.hnorm.weight"), "hnorm"),
    "a target without a layer": (tiny.llama, _drop("blk.1.ffn_up.weight"), "blk.1.ffn_up.weight"),
    "an epsilon below zero": (
        tiny.llama,
        _set("llama.attention.layer_norm_rms_epsilon", -1.0),
        "expected a small positive number, found -1.0",
    ),
    "an epsilon that is none": (
        tiny.llama,
        _set("llama.attention.layer_norm_rms_epsilon", float("nan")),
        "expected a small positive number, found nan",
    ),
    "odd rotations": (tiny.gemma2, _set("gemma2.rope.dimension_count", 7), "found 7"),
    "rotations wider than heads": (
        tiny.qwen35,
        _set("qwen35.rope.dimension_count", 32),
        "found 32",
    ),
    "no rotations": (tiny.gemma2, _set("gemma2.rope.dimension_count", 0), "found 0"),
    "an endless window": (
        tiny.gemma2,
        _set("gemma2.attention.sliding_window", 2**31 - 1),
        "expected at most 16777216",
    ),
    "a tokenizer without its bytes": (
        tiny.llama,
        _set("tokenizer.ggml.model", "llama"),
        "unordered_map::at",
    ),
    "a tokenizer without a beginning": (
        tiny.llama,
        _set("tokenizer.ggml.model", "gemma4"),
        "GGML_ASSERT",
    ),
    "too few token types": (tiny.llama, _set("tokenizer.ggml.token_type", [1, 1]), "toktypes"),
    "no vocabulary": (
        tiny.llama,
        lambda spec: spec.keys.update(
            {"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": tiny.N_VOCAB}
        ),
        "this model has no vocabulary to read text with",
    ),
    "an unknown architecture": (
        tiny.llama,
        lambda spec: setattr(spec, "architecture", "nothing"),
        "its architecture, nothing, is not one that this llama.cpp runs",
    ),
    "no block": (tiny.llama, _set("llama.block_count", 0), ""),
    "more blocks than there are": (tiny.llama, _set("llama.block_count", 3), "blk.2."),
    "blocks beyond count": (tiny.llama, _set("llama.block_count", 2**32 - 1), ""),
    "a state of no size": (tiny.qwen35, _set("qwen35.ssm.group_count", 0), ""),
    "rows of another width": (tiny.llama, _set("llama.embedding_length", 65), "expected"),
    "a key of another type": (tiny.llama, _set("llama.block_count", "two"), "block_count"),
}


@pytest.mark.parametrize("name", CRASHERS)
def test_models_that_make_llama_cpp_give_up(tmp_path: Path, name: str) -> None:
    build, change, reason = CRASHERS[name]
    spec = build()
    change(spec)
    assert reason in refusal(spec.write(tmp_path / "model.gguf"))


def test_a_model_that_makes_llama_cpp_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny.llama()
    spec.keys["tokenizer.ggml.model"] = "rwkv"
    monkeypatch.setattr(preflight, "_LIMIT_S", 3.0)
    assert "did not come to an end" in refusal(spec.write(tmp_path / "model.gguf"))


def test_a_folder_with_modules_of_its_own(
    tiny_file: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child that examines a file runs nothing that lies where the user happens to be."""
    for name in ("json", "re", "numpy", "llama_cpp", "mtp_cli", "platformdirs"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert runs(tiny_file("llama"))


# Headers whose values are of another kind


def test_counts_that_are_none_count_nothing(tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys["llama.nextn_predict_layers"] = float("inf")
    spec.keys["split.count"] = "three"
    (header,) = gguf_header.read_shards(spec.write(tmp_path / "model.gguf"))
    assert (header.number("nextn_predict_layers"), header.n_target_layers) == (0, 2)


def test_arrays_where_texts_belong(tmp_path: Path) -> None:
    spec = tiny.heads_for(tiny.llama(), hidden="pre_norm")
    spec.keys["mtp.hidden"] = [1, 2]
    path = spec.write(tmp_path / "heads.gguf")
    assert not independent_heads.is_independent(gguf_header.read_header(path))
    with pytest.raises(MtpError, match=r"mtp\.hidden: expected one of pre_norm"):
        head_file.HeadInfo.from_metadata(gguf_header.read_header(path).pairs)
    spec.keys["general.type"] = [1, 2]
    assert not gguf_header.is_head_file(gguf_header.read_header(spec.write(path)))


# What is remembered of files


def test_a_file_is_examined_once(
    tiny_file: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    examined: list[Path] = []
    monkeypatch.setattr(preflight, "_examine_in_child", examined.append)
    path.write_bytes(tiny_file("llama").read_bytes())
    preflight.preflight(path)
    preflight.preflight(path)
    assert examined == [path]
    path.write_bytes(tiny_file("gemma2").read_bytes())
    preflight.preflight(path)
    assert examined == [path, path], "another file by the same name"


@pytest.mark.parametrize(
    "memory",
    [b"", b"{", b'{"a": 1}', b"[1, null]", b"\xff\xfe", b"[" * 200_000],
)
def test_a_damaged_memory_is_no_error(
    tiny_file: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    examined: list[Path] = []
    monkeypatch.setattr(preflight, "_examine_in_child", examined.append)
    (tmp_path / "mtp-cli").mkdir()
    (tmp_path / "mtp-cli" / "preflight.json").write_bytes(memory)
    preflight.preflight(tiny_file("llama"))
    preflight.preflight(tiny_file("llama"))
    assert len(examined) == 1


def test_a_refused_file_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1))
    for _ in range(2):
        assert refusal(path).startswith("the GGUF header is damaged")


def test_an_unwritable_cache_is_no_error(
    tiny_file: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert runs(tiny_file("llama"))
