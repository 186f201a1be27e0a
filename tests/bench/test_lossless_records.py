"""benchmarks/lossless.py: whose findings a run that goes on may count as its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks import lossless
from benchmarks.document.page import page
from benchmarks.lossless import Proof, Record, as_json, code_version, prove, setup
from mtp_cli.models import ModelFiles
from tests.engine import tiny

WANTED = ["Hello", "Name a sea.", "Bye"]
SHORT = "Name a sea."
Run = Callable[..., tuple[bool, list[str]]]


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossless, "prompts", lambda: WANTED)


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    path = tmp_path / "heads.gguf"
    path.write_bytes(b"GGUF one")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Prove some answers under a setup: whether it was, and what had to be compared for it."""

    def proved(of: Record, n_answers: int = 2) -> tuple[bool, list[str]]:
        compared: list[str] = []

        def find(text: str) -> Record:
            compared.append(text)
            if text == SHORT:
                return {"prompt": text, "n_tokens": 3, "differing": None}
            is_bad = of["heads"] is None and text == "Bye"
            return {"prompt": text, "n_tokens": 5, "differing": [2] if is_bad else []}

        proof = prove("q4_0", n_answers, of, tmp_path / "results.jsonl", find)
        return proof.holds, compared

    return proved


def test_a_run_goes_on_where_it_was(
    run: Run, heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = setup(heads, 200, 2)
    assert run(of) == (True, WANTED)
    assert capsys.readouterr().out.startswith("q4_0: 0 records were taken from an earlier run\n")
    results = tmp_path / "results.jsonl"
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:2]))
    assert run(of) == (True, WANTED[2:])
    out = capsys.readouterr().out
    assert out.startswith("q4_0: 2 records were taken from an earlier run\n")
    assert "q4_0: 2 answers, 10 tokens, depths 1-8 and auto: 0 answers differ" in out


def test_as_many_answers_of_the_full_length_as_were_asked_for(
    run: Run, heads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = setup(heads, 200, 2)
    assert run(of, 1) == (True, WANTED[:1])
    assert run(of, 3) == (False, WANTED[1:])  # the short one does not count
    assert "q4_0: 2 answers, 10 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [
        {"heads": "0" * 64},
        {"code": "0" * 40},
        {"llama-cpp-python": "0.0.1"},
        {"max_tokens": 20},
        {"threads": 1},
    ],
)
def test_what_another_setup_found_does_not_count(run: Run, heads: Path, other: Record) -> None:
    of = setup(heads, 200, 2)
    assert of.keys() >= other.keys()
    run({**of, **other})
    assert run(of) == (True, WANTED)


def test_nor_does_what_does_not_say_its_setup(run: Run, heads: Path, tmp_path: Path) -> None:
    silent = {"format": "q4_0", "prompt": "Hello", "n_tokens": 5, "differing": []}
    (tmp_path / "results.jsonl").write_text(json.dumps(silent) + "\n")
    assert run(setup(heads, 200, 2)) == (True, WANTED)


def test_another_setup_s_difference_is_not_reported(
    run: Run, heads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(setup(None, 200, 2)) == (False, WANTED)
    assert "depths [2]: Bye" in capsys.readouterr().out
    assert run(setup(heads, 200, 2)) == (True, WANTED)
    assert "1 answers differ" not in capsys.readouterr().out


def test_the_counts_are_written_up(run: Run, heads: Path, tmp_path: Path) -> None:
    model = tiny.llama().write(tmp_path / "tiny.gguf")
    proofs = {"q4_0": Proof(2, 2, 10, 0), "bf16": Proof(2, 1, 5, 1)}
    assert [proof.holds for proof in proofs.values()] == [True, False]
    found = as_json(ModelFiles(model, None), proofs, 5, 1)
    assert found["depths"] == [1, 2, 3, 4, 5, 6, 7, 8, "auto"]
    assert "| BF16 | 1 | 5 | 1 |" in page({"lossless": found})


def test_heads_are_known_by_their_content(heads: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(heads.read_bytes())
    of = setup(heads, 200, 2)
    assert setup(copy, 200, 2) == of
    heads.write_bytes(b"GGUF two")
    assert setup(heads, 200, 2)["heads"] != of["heads"]


def test_code_is_known_by_its_commit_and_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, root = tmp_path / "tools", tmp_path / "root"
    tools.mkdir()
    root.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    assert code_version(root) == version("mtp-cli")  # no repository
    (root / ".git").mkdir()
    assert code_version(root) == version("mtp-cli")  # no git
    git = tools / "git"
    git.write_text('#!/bin/sh\ncase $3 in rev-parse) echo c0ffee;; diff) echo "$CHANGES";; esac\n')
    git.chmod(0o755)
    monkeypatch.setenv("CHANGES", "")
    assert code_version(root) == "c0ffee"
    changed = []
    for changes in ("+ a = 1", "+ a = 2"):
        monkeypatch.setenv("CHANGES", changes)
        changed.append(code_version(root))
    assert len({"c0ffee", *changed}) == 3
    git.write_text("#!/bin/sh\nexit 128\n")
    assert code_version(root) == version("mtp-cli")  # not ours to read
