"""`mtp-chat models` over stores with tiny models: what it says of each, for people and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.memory import estimate
from tests.engine import tiny
from tests.engine.specs import SPECS
from tests.library import laid_out


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mtp_cli.chat", "models", *arguments],
        env={**os.environ, "MTP_KERNELS": "ggml", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def stores(home: Path) -> Path:
    """A model with heads beside it, a smaller one, one with heads inside, half of one, and none."""
    made = home / "made"
    made.mkdir()

    def content(name: str) -> bytes:
        path = made / name
        return (path if path.exists() else SPECS[name]().write(path)).read_bytes()

    repository = "you/Tiny-GGUF"
    laid_out.hugging_face(home, repository, "Tiny-F32.gguf", content("llama"))
    laid_out.hugging_face(home, repository, "mtp-Tiny.gguf", content("heads"))
    laid_out.ollama(home, "small", content=content("llama-q4_0"))
    laid_out.lm_studio(home, "they/Inside", "inside.gguf", content("mimo2"))
    laid_out.lm_studio(home, "they/Half", "half-00001-of-00002.gguf", content("llama"))
    laid_out.lm_studio(home, "they/None", "none.gguf", b"<!DOCTYPE html><html>")
    tiny.Spec("llama", dict(tiny.VOCABULARY), {}).write(made / "vocabulary.gguf")
    laid_out.lm_studio(home, "they/Words", "words.gguf", (made / "vocabulary.gguf").read_bytes())
    return home


def listed(*words: str) -> dict[str, dict[str, Any]]:
    done = run("--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return {model["name"]: model for model in json.loads(done.stdout)}


def test_everything_that_is_known_of_each(stores: Path) -> None:
    found = listed()
    target = found["you/Tiny-GGUF:F32"]
    shards = read_shards(Path(target["path"]))
    heads = Path(target["path"]).with_name("mtp-Tiny.gguf")
    assert target["store"] == "Hugging Face"
    assert target["n_bytes"] == Path(target["path"]).stat().st_size
    assert (target["architecture"], target["format"]) == ("llama", "F32")
    assert target["n_ctx_train"] == shards[0].number("context_length")
    assert target["heads"] == "mtp-Tiny.gguf"
    assert target["drafters"] == ["small:latest"]
    assert target["memory"] == estimate(shards, heads=heads).total
    assert target["fits"] is True
    assert target["fault"] == ""
    assert (found["small:latest"]["store"], found["small:latest"]["format"]) == ("Ollama", "Q4_0")
    assert found["they/Inside/inside.gguf"]["heads"] == "3 in the file"
    built_in = found["SmolLM2-135M-Instruct.Q4_1"]
    assert built_in["heads"] == "smollm2-135m-instruct-mtp.gguf"


def test_what_does_not_run_is_said_with_why(stores: Path) -> None:
    faults = {name: model["fault"] for name, model in listed("they").items() if model["fault"]}
    assert faults == {
        "they/Half/half-00001-of-00002.gguf": "incomplete: 1 of 2 parts are missing",
        "they/None/none.gguf": "not a GGUF file but a web page; download the file that it is about",
        "they/Words/words.gguf": "a vocabulary without weights",
    }


def test_a_pipe_gets_columns_between_tabs(stores: Path) -> None:
    heading, *rows = (line.split("\t") for line in run("TINY").stdout.splitlines())
    assert heading == ["name", "size", "format", "context", "drafts", "memory", "runs on"]
    [row] = rows
    assert row[0] == "you/Tiny-GGUF:F32"
    assert row[4] == "mtp-Tiny.gguf"
    assert row[5].endswith(" MB, fits")
    assert row[6] == "llama.cpp"


def test_words_choose(stores: Path) -> None:
    assert set(listed("gguf", "tiny")) == {"you/Tiny-GGUF:F32"}
    assert listed("nosuch") == {}
