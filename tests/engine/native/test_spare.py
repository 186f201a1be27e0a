"""The spare thread: whenever it comes, or never, numbers are the same, and it lets go in time."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from mtp_cli.engine.backend import our_kernels, spare
from mtp_cli.engine.backend.cores import FreeCores, Usage, physical_cores
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.spare import SpareThread
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters.compiled_head import NativeHead, runnable
from mtp_cli.engine.drafters.fusion import open_fusion
from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.engine.native.compiled import FOLDER
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.models import built_in_heads, built_in_model
from tests.engine import tiny
from tests.engine.native.building import BUILDS, build

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is none"),
    pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here"),
]
AT_ONCE, AT_RANDOM, LATE, NEVER = range(4)  # as in scripted_spare.cpp


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if not BUILDS:
        pytest.skip("no compiler")
    path = tmp_path_factory.mktemp("spare") / "scripted.so"
    sources = [FOLDER / "spare.cpp", Path(__file__).with_name("scripted_spare.cpp")]
    build(path, sources, "-march=native", f"-I{FOLDER}")
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize(
    ("comes", "n_products"),
    [(AT_ONCE, 2000), (AT_RANDOM, 200), (LATE, 20), (NEVER, 200)],
    ids=["at once", "at random", "late", "never"],
)
def test_whenever_it_comes_the_numbers_are_right(
    scripted: Any, comes: int, n_products: int
) -> None:
    scripted.mtp_spare_begin(3)
    scripted.mtp_spare_offer(True)
    assert scripted.scripted(comes, n_products) == 0
    scripted.mtp_spare_end()
    assert scripted.scripted_entered() > 0


def test_none_comes_once_it_was_ended(scripted: Any) -> None:
    scripted.mtp_spare_begin(3)
    scripted.mtp_spare_end()
    scripted.mtp_spare_offer(True)
    assert scripted.scripted(AT_ONCE, 1) == -1


@pytest.mark.skipif(physical_cores() < 2, reason="one core")
def test_it_gives_its_core_to_a_decode_that_waits_for_one(scripted: Any) -> None:
    scripted.scripted_gives_its_core.restype = ctypes.c_bool
    assert scripted.scripted_gives_its_core()


def n_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_there_is_one_while_any_has_the_wish() -> None:
    first, second = SpareThread(), SpareThread()
    before = n_threads()
    first.use(True)
    second.use(True)
    first.use(True)
    assert n_threads() == before + 1
    first.use(False)
    assert n_threads() == before + 1
    second.use(False)
    assert n_threads() == before


def beside_a_program(n_most: int = 2) -> FreeCores:
    """What sees, at every look, that another program uses one of two cores."""
    n_looks = 0

    def read() -> Usage:
        nonlocal n_looks
        n_looks += 1
        passed_s = n_looks * TUNING.cores.look_every_s
        return Usage(clock_s=passed_s, idle_s=0.0, own_s=passed_s, thread_s=passed_s)

    return FreeCores(n_most, read, lambda: None)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    opened = Model(built_in_model())
    yield opened
    opened.close()


@contextlib.contextmanager
def target_of(model: Model, n_threads: int, cores: FreeCores | None = None) -> Iterator[Target]:
    target = Target(model, n_ctx=64, n_threads=n_threads, hidden=HiddenSource.NONE, cores=cores)
    try:
        yield target
    finally:
        target.close()


def rows_of(target: Target, n_rows: int) -> Floats:
    target.clear()
    target.decode(tiny.random_ids(6, seed=8))
    return target.decode(tiny.random_ids(n_rows, seed=9)).logits.copy()


def until_it_took(n_chunks: int, compute: Callable[[], Floats]) -> Iterator[Floats]:
    before = spare.n_taken()
    for _ in range(2000):
        yield compute()
        if spare.n_taken() >= before + n_chunks:
            return
    raise AssertionError("it took nothing in two thousand times")


@pytest.mark.parametrize("n_rows", [1, 4, 8])
def test_beside_a_program_it_helps_and_changes_no_bit(model: Model, n_rows: int) -> None:
    cores = beside_a_program()
    before = n_threads(), spare.n_taken()
    with target_of(model, 1) as alone, target_of(model, 2, cores) as helped:
        expected = rows_of(alone, n_rows)
        for look_s in (1e9, 2e9):
            cores.look(look_s)
        assert n_threads() > before[0]
        for rows in until_it_took(100, lambda: rows_of(helped, n_rows)):
            assert np.array_equal(rows, expected)
        taken = spare.n_taken()
        rows_of(alone, n_rows)  # it has not the wish
        assert spare.n_taken() == taken


def test_weights_can_go_at_any_moment() -> None:
    for _ in range(3):
        model = Model(built_in_model())
        cores = beside_a_program()
        with target_of(model, 2, cores) as target:
            for look_s in (1e9, 2e9):
                cores.look(look_s)
            for _ in until_it_took(1, functools.partial(rows_of, target, 8)):
                pass
        model.close()


@contextlib.contextmanager
def offered() -> Iterator[None]:
    thread = SpareThread()
    thread.use(True)
    thread.offer()
    try:
        yield
    finally:
        thread.use(False)
        thread.offer()


def shipped_head() -> NativeHead:
    path = built_in_heads()
    assert path is not None
    head = runnable(read_header(path), n_ctx=64)
    assert head is not None
    return NativeHead(head, n_ctx=64, n_batch=8, n_threads=1)


def drafted(head: NativeHead, n_rows: int) -> Floats:
    rows = np.random.default_rng(1).standard_normal((n_rows, head.n_embd)).astype(np.float32)
    head.clear()
    head.decode(tiny.random_ids(n_rows, seed=3), 0, first_output=n_rows - 1, hidden=rows)
    return np.concatenate([head.logits(), head.hidden()], axis=1)


@pytest.mark.parametrize("n_rows", [1, 5])
def test_it_helps_heads_and_changes_no_bit(n_rows: int) -> None:
    head = shipped_head()
    expected = drafted(head, n_rows)
    with offered():
        for found in until_it_took(100, lambda: drafted(head, n_rows)):
            assert np.array_equal(found, expected)
    head.close()


def test_it_helps_to_fuse_rows_and_changes_no_bit(tmp_path: Path) -> None:
    layers = range(1, 17)  # so that the matrix is large enough to be shared
    spec = tiny.fused_heads_for(tiny.llama(n_blocks=18), layers)
    path = spec.quantized(gguf.GGMLQuantizationType.Q8_0).write(tmp_path / "heads.gguf")
    fusion = open_fusion(read_header(path), 4, 1)
    width = len(layers) * tiny.N_EMBD
    rows = np.random.default_rng(1).standard_normal((4, width)).astype(np.float32)
    expected = fusion.rows(rows).copy()
    with offered():
        for found in until_it_took(100, lambda: fusion.rows(rows)):
            assert np.array_equal(found, expected)
    fusion.close()


def test_several_threads_do_without_it(model: Model) -> None:
    thread = SpareThread()
    thread.use(True)
    before = spare.n_taken()
    with target_of(model, 2) as target:
        rows_of(target, 1)
    assert spare.n_taken() == before
    thread.use(False)
