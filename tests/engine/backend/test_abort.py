"""A prompt whose reading is ended: soon, in any kind of memory, without a trace in what follows.

Compared with a fresh target that reads the same ids in the same pieces: bits are equal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

from mtp_cli.engine.backend.target import N_BATCH, Target
from tests.engine import tiny
from tests.engine.backend.test_rollback import KV_ONLY, every_kind, read
from tests.engine.conftest import Targets

N_CTX = 2048
BEFORE = tiny.random_ids(60, seed=1)
LONG = tiny.random_ids(2 * N_BATCH + 100, seed=2)  # three decodes, and its last row


def after_asking(n: int) -> Callable[[], bool]:
    """Says stop when it has been asked so many times."""
    n_asked = 0

    def is_stopped() -> bool:
        nonlocal n_asked
        n_asked += 1
        return n_asked >= n

    return is_stopped


def asked_in_one_decode(target: Target) -> int:
    n_asked = 0

    def count() -> bool:
        nonlocal n_asked
        n_asked += 1
        return False

    target.prefill(LONG[:N_BATCH], 0, count)
    target.clear()
    return n_asked


@every_kind
@pytest.mark.parametrize("n_decodes", [0, 1, 2])
def test_an_ended_prompt_leaves_no_trace(new_target: Targets, kind: str, n_decodes: int) -> None:
    target = new_target(kind, n_ctx=N_CTX)
    n_asked = asked_in_one_decode(target)
    assert n_asked > 20  # between any two nodes of a graph
    read(target, BEFORE)
    assert target.prefill(LONG, 4, after_asking(n_decodes * n_asked + n_asked // 2)) is None

    n_whole = n_decodes * N_BATCH
    kept = [*BEFORE, *LONG[:n_whole]] if kind in KV_ONLY else []
    assert target.ids == kept
    if kind not in KV_ONLY:
        read(target, BEFORE)
        n_whole = 0
    found = read(target, LONG[n_whole:]).logits.copy()

    fresh = new_target(kind, n_ctx=N_CTX)
    read(fresh, BEFORE)
    expected = read(fresh, LONG)
    assert np.array_equal(found, expected.logits)


def test_ctrl_c_ends_a_decode_that_nobody_else_would_end(
    new_target: Targets, capfd: pytest.CaptureFixture[str]
) -> None:
    target = new_target("llama", n_ctx=N_CTX)
    interrupt = after_asking(10)

    def is_stopped() -> bool:
        if interrupt():
            os.kill(os.getpid(), signal.SIGINT)
        return False

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            target.prefill(LONG, 0, is_stopped)
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr() == ("", "")  # ctypes would have printed it, and gone on
    found = read(target, LONG).logits.copy()
    assert np.array_equal(found, read(new_target("llama", n_ctx=N_CTX), LONG).logits)
