"""Which files an assistant goes with, and what each command says of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from typer.testing import CliRunner

from mtp_cli.engine.files import preflight
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.cli import app
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.metadata import pair
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import write_checkpoint
from tests.convert.checkpoints_gemma4 import gemma4_assistant
from tests.convert.conftest import ASSISTANTS, Convert
from tests.engine.opening import refusal

Checkpoint = Callable[[str], Path]


def changed(folder: Path, out: Path, **more: object) -> Path:
    """A family's GGUF with other metadata."""
    plan = plan_checkpoint(open_checkpoint(folder), Options(outtype="f32"))
    arch = plan.metadata["general.architecture"].value
    keys = {f"{arch}.{key.replace('__', '.')}": pair(value) for key, value in more.items()}
    write(dataclasses.replace(plan, metadata={**plan.metadata, **keys}), out)
    return out


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "another width": (
        {"embedding_length_out": 80},
        "this assistant was made for rows of width 80, gemma4-all-f32.gguf has 64",
    ),
    "other heads in full attention": (
        {"attention__key_length": 64},
        "made for full attention heads of width 64, gemma4-all-f32.gguf has 32",
    ),
    "other heads in sliding attention": (
        {"attention__value_length_swa": 8},
        "made for sliding attention heads of width 8, gemma4-all-f32.gguf has 16",
    ),
    "another number of keys": (
        {"attention__head_count_kv": np.array([2, 1, 1], np.int32)},
        "made for sliding key heads, in number, 1, gemma4-all-f32.gguf has 2",
    ),
    "as many keys everywhere": (
        {"attention__head_count_kv": 2},
        "made for full key heads, in number, 2, gemma4-all-f32.gguf has 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_assistant_of_another_target(
    name: str,
    checkpoint: Checkpoint,
    converted: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused by the headers alone: llama.cpp does not see it."""
    monkeypatch.setattr(preflight, "_examine_in_child", lambda *files: None)
    more, line = WRONG[name]
    heads = changed(checkpoint("gemma4_assistant"), tmp_path / "heads.gguf", **more)
    assert line in refusal(converted("gemma4"), heads)


def test_an_assistant_with_another_vocabulary(converted: Convert, tmp_path: Path) -> None:
    tiny = gemma4_assistant(vocab_size=300)
    name = "model.embed_tokens.weight"
    tiny.tensors[name] = tiny.tensors[name][:300]
    folder = write_checkpoint(tmp_path / "x", tiny, tokenizer=False)
    heads = changed(folder, tmp_path / "heads.gguf")
    line = "this assistant was made for a vocabulary of 300, gemma4-all-f32.gguf has 320"
    assert refusal(converted("gemma4"), heads).startswith(line)


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ([False, True, False, False], "reads sliding attention in its target's last layer but one"),
        ([True, False, True, True], "reads full attention in its target's last layer"),
    ],
)
def test_a_target_that_ends_otherwise(
    pattern: list[bool],
    line: str,
    checkpoint: Checkpoint,
    converted: Convert,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """llama.cpp would hand it the keys of some other layer."""
    monkeypatch.setattr(preflight, "_examine_in_child", lambda *files: None)
    target = changed(
        checkpoint("gemma4"), tmp_path / "target.gguf", attention__sliding_window_pattern=pattern
    )
    assert line in refusal(target, converted("gemma4_assistant"))


def test_a_target_of_another_architecture(converted: Convert) -> None:
    line = refusal(converted("qwen3"), converted("gemma4_assistant"))
    assert line.startswith("an assistant of a gemma4 model; qwen3-all-f32.gguf is qwen3; give ")


def test_an_assistant_of_a_sister(converted: Convert) -> None:
    """Keys that are no values in one size, and are in the other."""
    line = refusal(converted("gemma4"), converted("gemma4_e2b_assistant"))
    assert "made for full key heads, in number, 2, gemma4-all-f32.gguf has 1" in line


def test_an_assistant_is_not_a_model(converted: Convert) -> None:
    assert "pass it with --heads" in refusal(converted("gemma4_assistant"))


def test_what_makes_llama_cpp_abort_is_one_line(
    checkpoint: Checkpoint, converted: Convert, tmp_path: Path
) -> None:
    """The child builds both contexts; here a tensor does not fit the metadata."""
    heads = changed(checkpoint("gemma4_assistant"), tmp_path / "heads.gguf", feed_forward_length=97)
    assert "llama.cpp could not load this model" in refusal(converted("gemma4"), heads)


def said(*arguments: object) -> str:
    """What a command refuses with."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(result.exception, MtpError)
    return str(result.exception)


@pytest.mark.parametrize("command", ["extract", "strip"])
def test_there_is_nothing_to_take_apart(command: str, converted: Convert, tmp_path: Path) -> None:
    heads = converted("gemma4_assistant")
    line = f"{heads}: an assistant is heads only, in a file of its own already"
    assert said(command, heads, "-o", tmp_path / "x.gguf") == line


@pytest.mark.parametrize("command", ["pack", "trim"])
def test_it_runs_from_a_file_of_its_own(command: str, converted: Convert, tmp_path: Path) -> None:
    heads, target = converted("gemma4_assistant"), converted("gemma4")
    files = (heads, target) if command == "trim" else (target, heads)
    line = said(command, *files, "-o", tmp_path / "x.gguf")
    assert line.startswith(f"{heads}: an assistant, which runs whole and from its own file")


def test_it_cannot_be_grafted(checkpoint: Checkpoint, converted: Convert, tmp_path: Path) -> None:
    target, out = converted("gemma4"), tmp_path / "x.gguf"
    folder = checkpoint("gemma4_assistant")
    assert "runs from a file of its own" in said("graft", target, folder, "-o", out)
    line = said("graft", target, checkpoint("gemma4"), "-o", out)
    assert "its heads are a checkpoint of their own, Gemma4AssistantForCausalLM" in line


def test_its_whole_file_is_heads(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, out = checkpoint("gemma4_assistant"), tmp_path / "x.gguf"
    assert "heads without a target" in said("convert", folder, "-o", out, "--no-heads")
    result = CliRunner().invoke(app, ["convert", str(folder), "-o", str(out), "--heads-only"])
    assert result.exit_code == 0
    assert len(GGUFReader(out).tensors) == 3 * 11 + 5


@pytest.mark.parametrize("target", ASSISTANTS)
def test_check_drafts_and_verifies(target: str, converted: Convert) -> None:
    eight = Options(outtype="q8_0")
    heads = converted(ASSISTANTS[target], eight)
    result = CliRunner().invoke(
        app, ["check", str(converted(target, eight)), "--heads", str(heads)]
    )
    assert result.exit_code == 0, result.output
    assert f"drafter: {heads.name}, assistant that shares the model's KV" in result.output
    assert "drafted greedy output equals plain output: 5 of 5 texts" in result.output
    assert "these heads look mis-loaded or untrained" in result.output  # they are random


def test_inspect_says_what_runs_it(checkpoint: Checkpoint, converted: Convert) -> None:
    for path in (checkpoint("gemma4_assistant"), converted("gemma4_assistant")):
        result = CliRunner().invoke(app, ["inspect", str(path)])
        assert "heads: one model (shared-kv)" in result.output
        assert "runs in: mtp-chat --heads, beside its target" in result.output
