"""Contexts of unusual sizes: too small for an answer, too large for the machine or for a C int."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from mtp_cli.engine import Engine
from mtp_cli.engine.backend.memory import within_memory
from mtp_cli.errors import MtpError
from tests.engine.conftest import Files, Targets
from tests.engine.scripted import GREEDY


@pytest.mark.parametrize("n_ctx", [1, 2])
def test_heads_open_beside_the_smallest_contexts(tiny_file: Files, n_ctx: int) -> None:
    with Engine.open(
        tiny_file("llama"), tiny_file("heads"), n_ctx=n_ctx, n_threads=1, n_gpu_layers=0
    ) as engine:
        assert engine.n_ctx == n_ctx
        if n_ctx > 1:
            answer = engine.generate([1], GREEDY, max_tokens=1)
            assert sum(map(len, answer)) == 1


def test_a_target_has_no_more_room_than_its_context(new_target: Targets) -> None:
    assert new_target("llama", n_ctx=2**32 + 300).n_ctx == 512


@pytest.fixture
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(total=1 << 30, available=16 << 20)
    )


@pytest.mark.usefixtures("_little_memory")
def test_a_context_that_does_not_fit_into_memory_is_one_clear_line(tiny_file: Files) -> None:
    with pytest.raises(MtpError, match="could not create a context of 1048576 tokens") as caught:
        Engine.open(tiny_file("llama"), n_ctx=1 << 20, n_threads=1, n_gpu_layers=0)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_little_memory")
def test_memory_is_scarce_inside_only() -> None:
    with within_memory(), pytest.raises(MemoryError):
        np.empty(256 << 20, np.uint8)
    assert np.empty(256 << 20, np.uint8).nbytes == 256 << 20


def test_a_twin_has_a_timeline_of_its_own_over_the_same_weights(tiny_file: Files) -> None:
    files = tiny_file("llama"), tiny_file("heads")
    with Engine.open(*files, n_ctx=64, n_threads=1, n_gpu_layers=0) as engine:
        plain = engine.generate([5, 6, 7], GREEDY, max_tokens=8, depth=0)
        expected = [token for tokens in plain for token in tokens]
        with engine.twin() as twin:
            assert list(twin.cached) == []
            assert (twin.n_ctx, twin.drafter) == (engine.n_ctx, engine.drafter)
            other = twin.generate([9, 8], GREEDY, max_tokens=8, depth=2)
            again = engine.generate([5, 6, 7], GREEDY, max_tokens=8, depth=2)
            for _ in range(8):
                next(other, None)
                next(again, None)
            assert again.tokens == expected
            assert list(twin.cached) == [9, 8, *other.tokens[:-1]]
        assert list(engine.cached) == [5, 6, 7, *expected[:-1]]


def test_what_is_forgotten_is_read_again(tiny_file: Files) -> None:
    files = tiny_file("llama"), tiny_file("heads")
    with Engine.open(*files, n_ctx=64, n_threads=1, n_gpu_layers=0) as engine:
        first, again = (
            engine.generate([5, 6, 7], GREEDY, max_tokens=8, depth=depth) for depth in (0, 2)
        )
        for _ in first:
            pass
        engine.forget()
        assert list(engine.cached) == []
        for _ in again:
            pass
        assert again.tokens == first.tokens
        assert again.stats.cached_tokens == 0
