"""Block drafters, which nothing here runs, are refused by name before llama.cpp sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine import Engine
from mtp_cli.errors import MtpError
from tests.engine import tiny
from tests.engine.conftest import Files
from tests.engine.opening import refusal

KINDS = {"DFlash": "fc.weight", "DSpark": "markov_w1.weight"}


def _drafter(folder: Path, kind: str) -> Path:
    weight = np.ones((4, 32), np.float32)
    return tiny.Spec("dflash", {}, {KINDS[kind]: weight}).write(folder / "block.gguf")


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_drafter_as_heads(tiny_file: Files, tmp_path: Path, kind: str) -> None:
    line = refusal(tiny_file("llama"), _drafter(tmp_path, kind))
    assert line.startswith(f"a {kind} drafter, which nothing here runs yet; take MTP heads")


def test_a_block_drafter_as_model(tmp_path: Path) -> None:
    assert "a DSpark drafter, which" in refusal(_drafter(tmp_path, "DSpark"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_drafter_as_draft_model(tiny_file: Files, tmp_path: Path, kind: str) -> None:
    path = _drafter(tmp_path, kind)
    with pytest.raises(MtpError, match=f"a {kind} drafter, which nothing here runs yet"):
        Engine.open(tiny_file("llama"), draft_model=path, n_ctx=64, n_threads=1, n_gpu_layers=0)
