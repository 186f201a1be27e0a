"""Native recursion that an ordinary stack cannot hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.stack import on_deep_stack
from mtp_cli.errors import MtpError
from tests.engine import tiny


def test_the_result_comes_back() -> None:
    assert on_deep_stack(1 << 20, lambda: re.sub("a", "b", "aa")) == "bb"


def test_an_error_comes_back() -> None:
    def fail() -> None:
        raise MtpError("no")

    with pytest.raises(MtpError, match="no"):
        on_deep_stack(1 << 20, fail)


def test_a_long_text_without_a_break_is_tokenized(tmp_path: Path) -> None:
    spec = tiny.llama()
    spec.keys["tokenizer.ggml.pre"] = "deepseek-llm"  # a std::regex in llama.cpp
    model = Model(spec.write(tmp_path / "tiny.gguf"))
    try:
        short = model.tokenize("a" * 1000, add_special=False, parse_special=False)
        long = model.tokenize("a" * 300_000, add_special=False, parse_special=False)
        assert len(short) == 1000
        assert len(long) == 300_000
    finally:
        model.close()
