"""Bad input by command, both formats: one line that names file and tensor, exit 1, and no trace.

Each case damages one thing about a good checkpoint or GGUF and runs a command that needs it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mtp_cli.errors import MtpError
from mtp_convert import cli
from mtp_convert.checkpoint.folder import INDEX, open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.detach import plan_strip
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import smollm, write_checkpoint
from tests.convert.checkpoints_mtp import glm4moe
from tests.convert.conftest import Convert
from tests.convert.heads import write_head_file
from tests.convert.test_bad_checkpoints import edit_config, edit_header, edit_index
from tests.full_disk import no_room

OLD = b"what was there before"
SHARD = "model-00001-of-00002.safetensors"
NORM = "model.norm.weight"
LAYER_NORM = "model.layers.1.input_layernorm.weight"
TARGET = Options("target", outtype="q8_0")
Run = Callable[..., str]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs a command that must fail; its one line of error."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "x.gguf").write_bytes(OLD)

    def run(*arguments: object) -> str:
        words = ["mtp-convert", *map(str, arguments), "-o", str(folder / "x.gguf")]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert (stop.value.code, captured.out) == (1, "")
        assert os.listdir(folder) == ["x.gguf"]
        assert (folder / "x.gguf").read_bytes() == OLD
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        return captured.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def shard_of(folder: Path, name: str) -> Path:
    return folder / str(json.loads((folder / INDEX).read_text())["weight_map"][name])


def describe(name: str, **fields: Any) -> Callable[[Path], None]:
    """Change what a shard's header says of a tensor."""
    return lambda folder: edit_header(
        shard_of(folder, name), lambda header: header[name].update(fields)
    )


def cut(folder: Path) -> None:
    os.truncate(folder / SHARD, (folder / SHARD).stat().st_size - 100)


def absurd(folder: Path) -> None:
    (folder / SHARD).write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "a missing shard": (lambda folder: (folder / SHARD).unlink(), ["missing", SHARD]),
    "an extra shard with other bytes": (
        lambda folder: (folder / "model-00009-of-00002.safetensors").write_bytes(
            (folder / SHARD).read_bytes()[:-1] + b"\x55"),
        ["model-00009-of-00002.safetensors", "another tensor than in", SHARD]),
    "a tensor no shard holds": (
        lambda folder: edit_index(folder, lambda names: names.update({"model.ghost": SHARD})),
        [SHARD, "model.ghost", INDEX]),
    "a truncated shard": (cut, [SHARD, "weight", "is it truncated"]),
    "overlapping offsets": (
        describe(LAYER_NORM, data_offsets=[0, 128]), ["weight: overlaps", "expected it at byte"]),
    "offsets out of range": (
        describe(NORM, data_offsets=[1 << 40, (1 << 40) + 128]), [NORM, "lie outside"]),
    "a header of absurd length": (absurd, [SHARD, "header of 1152921504606846976", "expected"]),
    "shapes against config.json": (
        lambda folder: edit_config(folder, hidden_size=32), [SHARD, "token_embd.weight",
        "model.embed_tokens.weight", "expected (320, 32)", "found (320, 64)"]),
    "rows that are no heads of config.json": (
        lambda folder: edit_config(
            folder, architectures=["LlamaForCausalLM"], num_attention_heads=24, head_dim=16),
        ["-of-00002.safetensors", "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight",
         "64 rows do not divide into 24 heads"]),
    "an unknown number format": (
        describe(NORM, dtype="F4_E2M1"), [NORM, "'F4_E2M1'", "expected one of F64"]),
    "an unknown architecture": (
        lambda folder: edit_config(folder, architectures=["MartianForCausalLM"]),
        ["config.json", "MartianForCausalLM", "expected"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_bad_checkpoint(case: str, refused: Run, tmp_path: Path) -> None:
    damage, words = CHECKPOINTS[case]
    folder = write_checkpoint(tmp_path / "tiny", glm4moe())
    damage(folder)
    line = refused("convert", folder)
    assert all(word in line for word in (str(folder), *words)), line


def test_a_head_file_where_graft_takes_a_folder(
    refused: Run, converted: Convert, tmp_path: Path
) -> None:
    target = converted("smollm", Options(outtype="q8_0"))
    heads = write_head_file(tmp_path / "heads.gguf", target)
    line = refused("graft", target, heads)
    assert f"{heads}: a head file" in line
    assert "mtp-convert pack joins a head file to its target" in line
    line = refused("graft", target, target)
    assert f"{target}: expected a checkpoint folder; a GGUF needs no converting" in line


OTHER_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "another width": ({"hidden_size": 32}, "embedding_length 32"),
    "another vocabulary": ({"vocab_size": 300}, "a vocabulary of 300"),
    "fewer layers": ({"num_hidden_layers": 2}, "heads for 2 layers"),
}


@pytest.mark.parametrize("case", OTHER_MODELS)
def test_heads_for_another_model(
    case: str, refused: Run, converted: Convert, tmp_path: Path
) -> None:
    changes, words = OTHER_MODELS[case]
    folder, target = write_checkpoint(tmp_path / "tiny", glm4moe()), converted("glm4moe", TARGET)
    edit_config(folder, **changes)
    line = refused("graft", target, folder)
    assert all(word in line for word in (str(folder), words, str(target))), line


def described_at(path: Path, name: str) -> int:
    """Where in the file the description of a tensor goes on after its name."""
    return path.read_bytes().index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)


def patch(path: Path, where: int, raw: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(where)
        file.write(raw)


def patch_offset(path: Path, name: str, value: int) -> None:
    n_dims = len(read_gguf(path).tensors[name].shape)
    patch(path, described_at(path, name) + 4 + 8 * n_dims + 4, struct.pack("<Q", value))


def patch_format(path: Path, name: str, code: int) -> None:
    n_dims = len(read_gguf(path).tensors[name].shape)
    patch(path, described_at(path, name) + 4 + 8 * n_dims, struct.pack("<I", code))


def patch_key(path: Path, key: str, raw: bytes) -> None:
    """The value of a metadata key, behind its four bytes of type."""
    patch(path, path.read_bytes().index(key.encode()) + len(key) + 4, raw)


TENSOR = "blk.0.attn_q.weight"
GGUFS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "truncated": (
        lambda path: os.truncate(path, path.stat().st_size - 4096), ["weight", "is it truncated"]),
    "truncated in the header": (lambda path: os.truncate(path, 100), ["expected", "truncated"]),
    "overlapping": (
        lambda path: patch_offset(path, TENSOR, 0), ["overlaps", "expected it at byte"]),
    "out of range": (
        lambda path: patch_offset(path, TENSOR, 1 << 40), [TENSOR, "do not fit the file"]),
    "a header of absurd length": (
        lambda path: patch(path, 8, b"\xff" * 8), ["18446744073709551615 tensors", "expected"]),
    "a string of absurd length": (
        lambda path: patch(path, 24, b"\xff" * 8), ["18446744073709551615 bytes", "expected"]),
    "an unknown number format": (
        lambda path: patch_format(path, TENSOR, 999), [TENSOR, "number format 999", "expected"]),
    "a shape its format cannot have": (
        lambda path: patch(path, described_at(path, TENSOR) + 4, struct.pack("<Q", 33)),
        [TENSOR, "cannot hold shape"]),
    "another endianness": (
        lambda path: patch(path, 4, b"\0\0\0\3"), ["big-endian", "expected little-endian"]),
    "another version": (lambda path: patch(path, 4, b"\7\0\0\0"), ["version 7", "expected 3"]),
    "no GGUF": (lambda path: patch(path, 0, b"PK\3\4"), ["not a GGUF file"]),
    "more heads than blocks": (
        lambda path: patch_key(path, "glm4moe.nextn_predict_layers", b"\x63\0\0\0"),
        ["99 heads in 4 blocks"]),
    "an unknown architecture": (
        lambda path: patch_key(path, "general.architecture", struct.pack("<Q", 7) + b"martian"),
        ["architecture martian", "martian.block_count is missing"]),
}  # fmt: skip


@pytest.mark.parametrize("case", GGUFS)
@pytest.mark.parametrize("command", ["strip", "extract"])
def test_a_bad_gguf(
    command: str, case: str, refused: Run, converted: Convert, tmp_path: Path
) -> None:
    damage, words = GGUFS[case]
    path = tmp_path / "model.gguf"
    shutil.copy(converted("glm4moe", Options(outtype="q8_0")), path)
    damage(path)
    line = refused(command, path)
    assert all(word in line for word in (str(path), *words)), line


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mimo2.embedding_length", 32, "embedding_length 32, the target's is 64"),
        ("mimo2.feed_forward_length", 64, "feed_forward_length 64, the target's is 96"),
        ("mimo2.attention.key_length", 8, "attention heads of another width than the target's"),
        ("mtp.trunk.vocab_size", 300, "for 300 ids, the target has 320"),
    ],
)
def test_a_head_file_of_other_sizes(
    key: str, value: int, words: str, refused: Run, converted: Convert, tmp_path: Path
) -> None:
    target = converted("smollm", Options(outtype="q8_0"))
    heads = write_head_file(tmp_path / "heads.gguf", target)
    patch_key(heads, key, struct.pack("<I", value))
    assert refused("pack", target, heads) == f"error: {heads}: {words}\n"


@pytest.mark.parametrize("command", ["pack", "trim"])
def test_a_head_file_of_a_model_of_more_layers(
    command: str, refused: Run, converted: Convert, tmp_path: Path
) -> None:
    tiny = smollm()
    for name in [name for name in tiny.tensors if name.startswith("model.layers.0.")]:
        tiny.put(name.replace("layers.0.", "layers.3."), tiny.tensors[name])
    tiny.config["num_hidden_layers"] += 1
    folder = write_checkpoint(tmp_path / "deeper", tiny)
    deeper, target = tmp_path / "deeper.gguf", converted("smollm", Options(outtype="q8_0"))
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="q8_0")), deeper)
    heads = write_head_file(tmp_path / "heads.gguf", deeper)
    arguments = (target, heads) if command == "pack" else (heads, target)
    assert refused(command, *arguments) == f"error: {heads}: made for tiny, not for {target}\n"


def test_a_model_that_ends_while_it_is_read(converted: Convert, tmp_path: Path) -> None:
    path, out = tmp_path / "model.gguf", tmp_path / "out.gguf"
    shutil.copy(converted("glm4moe", Options(outtype="q8_0")), path)
    plan = plan_strip(path)
    os.truncate(path, 8192)
    with pytest.raises(MtpError, match=r"model\.gguf: \S+: the file ends too early"):
        write(plan, out)
    assert os.listdir(tmp_path) == ["model.gguf"]


@pytest.mark.parametrize("n_bytes", [10, 100_000])
def test_a_disk_that_fills_up(
    n_bytes: int, refused: Run, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = checkpoint("glm4moe")
    with no_room(n_bytes):
        line = refused("convert", folder, "--force")
    assert f"{tmp_path}/out/x.gguf: cannot be written: File too large" in line


@contextmanager
def without_privileges() -> Iterator[None]:
    """As another user, where the tests run as root, whom permissions do not stop."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


def test_a_folder_that_may_not_be_written(converted: Convert, tmp_path: Path) -> None:
    plan, closed = plan_strip(converted("glm4moe", Options(outtype="q8_0"))), tmp_path / "closed"
    closed.mkdir(mode=0o555)
    wanted = r"closed/out\.gguf: cannot be written: Permission denied"
    with without_privileges(), pytest.raises(MtpError, match=wanted):
        write(plan, closed / "out.gguf")
    assert os.listdir(closed) == []
