"""Files of independent heads at the command line and in the engine: what works, what is refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.errors import MtpError
from mtp_convert.gguf.header import read_gguf
from tests.convert.checkpoints_meta import N_FUTURE, N_LAYERS, gloeckle, write_meta_checkpoint
from tests.convert.conftest import Convert, MakeFiles, convert
from tests.convert.test_cli import run
from tests.convert.test_families import PROMPT

GREEDY = Sampling(temperature=0.0)
SAME_SIZES = "of the same width and vocabulary as"
NO_PLACE = "llama.cpp has no place for independent heads in a model's file; "


def refusal(*arguments: object) -> str:
    """The one line of a command that fails."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").strip()


def opening(model: Path, heads: Path) -> str:
    """The one line with which the engine refuses them, without the path it names."""
    with pytest.raises(MtpError) as caught:
        Engine.open(model, heads, n_ctx=64, n_threads=1, n_gpu_layers=0)
    line = str(caught.value)
    assert "\n" not in line
    return line.removeprefix(f"{heads}: ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_meta_checkpoint(tmp_path / "7B_200B_4", gloeckle())


def test_the_way_from_a_published_folder_to_drafts(folder: Path, tmp_path: Path) -> None:
    said = run("inspect", folder).stdout.splitlines()
    assert said[0] == (
        f"{folder}: checkpoint of Meta's multi-token prediction, llama.cpp architecture llama"
    )
    assert said[1:4] == [
        "target: 3 layers, width 64, vocabulary 320",
        "heads: 3 (independent, plain KV)",
        "runs in: mtp-chat, after mtp-convert convert --no-heads and --heads-only",
    ]
    target, heads = tmp_path / "target.gguf", tmp_path / "heads.gguf"
    assert refusal("convert", folder, "-o", target) == (
        f"{folder}: {NO_PLACE}convert the target with --no-heads, and the heads beside it with "
        "--heads-only"
    )
    assert run("convert", folder, "-o", target, "--no-heads", "--outtype", "q8_0").returncode == 0
    dry = run("convert", folder, "-o", heads, "--heads-only", "--outtype", "q8_0", "--dry-run")
    assert not heads.exists()
    assert run("convert", folder, "-o", heads, "--heads-only", "--outtype", "q8_0").returncode == 0
    planned = [line.split()[0] for line in dry.stdout.split("\n\n")[0].splitlines()]
    assert planned == list(read_gguf(heads).tensors)
    said = run("inspect", heads).stdout.splitlines()
    assert said[1].startswith("heads: 3 (independent), ")
    assert said[2] == "for: 7B_200B_4, width 64, vocabulary 320, last_layer"
    assert "warning" not in run("inspect", target).stdout
    said = run("check", target, "--heads", heads).stdout.splitlines()
    assert said[0] == "drafter: heads.gguf, 3 independent heads"
    assert "drafted greedy output equals plain output: 5 of 5 texts" in said


def test_commands_for_heads_in_a_targets_file_say_so(
    folder: Path, gloeckle_files: MakeFiles, tmp_path: Path
) -> None:
    target, heads = gloeckle_files("f32")
    out = tmp_path / "x.gguf"
    line = refusal("graft", target, folder, "-o", out)
    assert line.startswith(f"{folder}: {NO_PLACE}mtp-convert convert --heads-only")
    assert refusal("extract", heads, "-o", out) == f"{heads}: holds heads only"
    assert refusal("strip", heads, "-o", out) == f"{heads}: holds heads only"
    line = refusal("pack", target, heads, "-o", out)
    assert line.startswith(f"{heads}: llama heads on last_layer rows; expected mimo2 heads")
    assert not out.exists()


def test_trimmed_heads_draft_the_ids_they_kept(gloeckle_files: MakeFiles, tmp_path: Path) -> None:
    target, heads = gloeckle_files("f32")
    out, text = tmp_path / "small.gguf", tmp_path / "text.txt"
    text.write_text("the thin inn " * 20)
    assert run("trim", heads, target, "-o", out, "--ids", 64, "--text", text).returncode == 0
    assert out.stat().st_size < heads.stat().st_size
    runs = []
    for depth in (0, 3):
        with Engine.open(target, out, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
            assert engine.drafter == "small.gguf, 3 independent heads, 64 ids"
            runs.append(engine.generate(PROMPT, GREEDY, max_tokens=30, depth=depth))
            list(runs[-1])
    assert runs[0].tokens == runs[1].tokens
    assert runs[1].stats.verified[0] > 10


def test_heads_of_another_model_are_refused(
    gloeckle_files: MakeFiles, converted: Convert, tmp_path: Path
) -> None:
    target, heads = gloeckle_files("f32")
    tuned = gloeckle()
    tuned.tensors["norm.weight"] = tuned.tensors["norm.weight"] * np.float32(2)
    other = convert(
        write_meta_checkpoint(tmp_path / "tuned", tuned), tmp_path / "tuned.gguf", "heads"
    )
    assert opening(target, other) == (
        f"these heads were made for another model (Tuned), {SAME_SIZES} {target.name}; "
        "give heads made for this model, or none"
    )
    deeper = gloeckle()
    deeper.config["n_layers"] += 1
    for tensor in [name for name in deeper.tensors if name.startswith("layers.0.")]:
        deeper.tensors[f"layers.{N_LAYERS - N_FUTURE + 1}{tensor[8:]}"] = deeper.tensors[tensor]
        deeper.formats[f"layers.{N_LAYERS - N_FUTURE + 1}{tensor[8:]}"] = deeper.formats[tensor]
    other = convert(
        write_meta_checkpoint(tmp_path / "deeper", deeper), tmp_path / "deeper.gguf", "heads"
    )
    assert opening(target, other) == (
        f"these heads were made for another model (Deeper), {SAME_SIZES} {target.name}; "
        "give heads made for this model, or none"
    )
    wider = gloeckle()
    for name in ("tok_embeddings.weight", "output.weight"):
        wider.tensors[name] = np.concatenate([wider.tensors[name]] * 2)
    other = convert(
        write_meta_checkpoint(tmp_path / "wider", wider), tmp_path / "wider.gguf", "heads"
    )
    assert opening(target, other) == (
        f"these heads were made for a vocabulary of 640, {target.name} has 320; "
        "give heads made for this model, or none"
    )
    qwen = converted("qwen3")
    assert opening(qwen, heads) == (
        f"these heads need a target of architecture llama; {qwen.name} is qwen3; "
        "give heads made for this model, or none"
    )


def test_heads_of_another_width_are_refused(gloeckle_files: MakeFiles, tmp_path: Path) -> None:
    target, heads = gloeckle_files("f32")
    raw, other = heads.read_bytes(), tmp_path / "other.gguf"
    made_for = b"mtp.trunk.embedding_length" + struct.pack("<I", 4)
    at = raw.index(made_for) + len(made_for)
    other.write_bytes(raw[:at] + struct.pack("<I", 128) + raw[at + 4 :])
    assert opening(target, other) == (
        f"these heads were made for rows of width 128, {target.name} has 64; "
        "give heads made for this model, or none"
    )


def test_damaged_files_are_one_line(gloeckle_files: MakeFiles, tmp_path: Path) -> None:
    target, heads = gloeckle_files("f32")
    place = read_gguf(heads).tensors["head.1.gguf"]
    raw = heads.read_bytes()

    def with_header(change: bytes) -> str:
        path = tmp_path / "damaged.gguf"
        path.write_bytes(raw[: place.offset] + change + raw[place.offset + len(change) :])
        return opening(target, path)

    damaged = "the GGUF header is damaged; get the file again"
    assert with_header(bytes(16)) == damaged
    assert with_header(b"GGUF" + struct.pack("<I", 9)) == damaged
    header = raw[place.offset : place.offset + place.n_bytes]
    layers = b"llama.block_count" + struct.pack("<II", 4, 1)
    assert layers in header
    two = header.replace(layers, layers[:-4] + struct.pack("<I", 2))
    assert with_header(two) == "head 1: expected one layer of architecture llama"
    eps = b"layer_norm_rms_epsilon" + struct.pack("<I", 6)
    at = header.index(eps) + len(eps)
    line = with_header(header[:at] + struct.pack("<f", -1.0) + header[at + 4 :])
    assert "layer_norm_rms_epsilon: expected a small positive number" in line
    short = tmp_path / "short.gguf"
    short.write_bytes(raw[: len(raw) - 64])
    assert opening(target, short).startswith("truncated: expected at least")


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"n_future_tokens": 0}, "n_layers 6, n_future_tokens 0: expected two counts"),
        ({"n_layers": None}, "n_layers None, n_future_tokens 4: expected two counts"),
        ({"n_layers": "6"}, "n_layers 6, n_future_tokens 4: expected two counts"),
        ({"dim": None}, "dim: expected a count, found None"),
        ({"n_heads": 0}, "n_heads: expected a count, found 0"),
        ({"use_scaled_rope": True}, "scaled rotary embeddings"),
        (
            {"hidden_dim": 96},
            "hidden_dim: Mistral's own layout; expected Meta's, or Hugging Face's",
        ),
    ],
)
def test_parameters_that_make_no_sense(params: dict[str, Any], line: str, folder: Path) -> None:
    file = folder / "params.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **params}))
    said = refusal("convert", folder, "--no-heads", "-o", folder / "x.gguf")
    assert said.startswith(f"{file}: ")
    assert line in said


def test_weights_that_are_missing_or_split(folder: Path) -> None:
    weights = folder / "consolidated.pth"
    shutil.copy(weights, folder / "consolidated.01.pth")
    said = refusal("inspect", folder)
    assert said.startswith(f"{folder}: 2 files of weights, consolidated.01.pth and others; ")
    weights.unlink()
    (folder / "consolidated.01.pth").unlink()
    assert refusal("inspect", folder) == (
        f"{folder}: holds params.json and neither a .pth nor a .safetensors file"
    )


def test_fewer_heads_than_announced(tmp_path: Path) -> None:
    tiny = gloeckle(n_extra=2)
    folder = write_meta_checkpoint(tmp_path / "two", tiny)
    assert "note: params.json announces 3 heads" in run("inspect", folder).stdout
    heads = convert(folder, tmp_path / "heads.gguf", "heads")
    assert "head.1.gguf" in read_gguf(heads).tensors
    assert "head.2.gguf" not in read_gguf(heads).tensors
