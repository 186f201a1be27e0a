"""A home of its own for each test, with nothing in it that other tools have left."""

from __future__ import annotations

from pathlib import Path

import pytest

VARIABLES = (
    *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT"),
    *("HF_HUB_OFFLINE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LLAMA_CACHE", "OLLAMA_MODELS"),
    "MTP_MODELS",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of someone who has no models yet; its folder `here` is the current one."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path
