"""What compiled passes over a row of logits give, against numpy's; `test_sampler.py` compares
those with llama.cpp's own."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mtp_cli
from mtp_cli.engine.native import compiled
from mtp_cli.engine.sampling.truncation import (
    Truncation,
    best,
    best_by_numpy,
    shortlist,
)
from mtp_cli.engine.sampling.verify import verify_block
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError

needs_compiled = pytest.mark.skipif(compiled.load() is None, reason="not compiled here")

SIZES = [1, 15, 40, 511, 512, 513, 1500, 8192, 49_152, 50_001]


def row(n: int, spread: float, step: float = 0.0, seed: int = 0) -> Floats:
    """step: logits are multiples of it, so that there are many ties"""
    logits = np.random.default_rng(seed).standard_normal(n) * spread
    if step:
        logits = (logits / step).round() * step
    return logits.astype(np.float32)


@needs_compiled
@settings(deadline=None)
@given(
    n=st.sampled_from(SIZES),
    spread=st.sampled_from([0.0, 0.5, 3.0, 12.0]),
    step=st.sampled_from([0.0, 0.5]),
    n_left_out=st.sampled_from([0, 1, 600]),
    seed=st.integers(0, 1000),
)
def test_the_best_id(n: int, spread: float, step: float, n_left_out: int, seed: int) -> None:
    logits = row(n, spread, step, seed)
    logits[1 : 1 + n_left_out] = -np.inf  # as suppressed ids are
    index, prob = best(logits)
    exact = logits.astype(np.float64)
    assert index == int(logits.argmax())
    assert prob == pytest.approx(1 / np.exp(exact - exact[index]).sum(), rel=1e-5)
    index_by_numpy, prob_by_numpy = best_by_numpy(logits)
    assert index_by_numpy == index
    assert prob_by_numpy == pytest.approx(prob, rel=1e-5)


@needs_compiled
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_with_something_else_than_numbers_has_no_sure_id(n: int, bad: float) -> None:
    for place in (0, n // 2, n - 1):
        logits = row(n, 3.0)
        logits[place] = bad
        with np.errstate(invalid="ignore"):
            assert best_by_numpy(logits)[1] == 0
        index, prob = best(logits)
        assert 0 <= index < n
        assert prob == 0
    index, prob = best(np.full(n, bad, np.float32))
    assert 0 <= index < n
    assert prob == 0


@needs_compiled
@settings(deadline=None)
@given(
    n=st.sampled_from(SIZES),
    spread=st.sampled_from([0.0, 0.5, 3.0, 12.0]),
    step=st.sampled_from([0.0, 0.5]),
    top_k=st.sampled_from([0, 1, 7, 40, 128, 129, 5000]),
    top_p=st.sampled_from([0.0, 0.4, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    temperature=st.sampled_from([0.01, 0.7, 1.7]),
    n_allowed=st.sampled_from([1, 3, 60, 10**6]),
    seed=st.integers(0, 1000),
)
def test_what_truncation_leaves(
    n: int,
    spread: float,
    step: float,
    top_k: int,
    top_p: float,
    min_p: float,
    temperature: float,
    n_allowed: int,
    seed: int,
) -> None:
    logits = row(n, spread, step, seed)
    order = np.random.default_rng(seed).permutation(n)
    logits[order[n_allowed:]] = -np.inf  # as a grammar leaves it
    as_it_was = logits.copy()
    truncation = Truncation(top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    found, expected = truncation.of(logits), truncation.by_numpy(logits)
    for point in (0.0, 0.3, 0.999999):
        assert truncation.token_at(logits, point) == found.token_at(point)
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.probs, expected.probs, rtol=1e-9)
    assert (np.diff(found.ids) > 0).all()
    assert np.array_equal(logits, as_it_was)


@needs_compiled
def test_what_the_compiled_passes_are_for_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_arguments: object) -> None:
        raise AssertionError("numpy was asked")

    monkeypatch.setattr("mtp_cli.engine.sampling.truncation.best_by_numpy", nothing)
    monkeypatch.setattr(Truncation, "by_numpy", nothing)
    best(row(49_152, 3.0))
    for n, k in ((8192, 40), (49_152, 1), (49_152, 128), (250_000, 40)):
        Truncation(top_k=k, top_p=0.95, min_p=0.05, temperature=0.8).of(row(n, 3.0))


@needs_compiled
@settings(deadline=None, max_examples=300)
@given(
    depth=st.integers(1, 8),
    spread=st.sampled_from([0.5, 3.0, 12.0]),
    likeness=st.sampled_from([0.0, 0.9, 1.0]),
    is_drawn=st.lists(st.booleans(), min_size=8, max_size=8).filter(lambda drawn: drawn[0]),
    seed=st.integers(0, 10_000),
)
def test_compiled_block_verification(
    depth: int, spread: float, likeness: float, is_drawn: list[bool], seed: int
) -> None:
    """With the same random numbers it accepts what the rule accepts."""
    truncation = Truncation(top_k=40, top_p=0.95, min_p=0.05, temperature=0.8)
    rows = [row(3000, spread, seed=seed + i) for i in range(depth + 1)]
    rng = np.random.default_rng(seed)
    points = rng.random(depth + 1)
    draft, drawn = [], {}
    for i, target in enumerate(rows[:depth]):
        other = row(3000, spread, seed=seed + 99 + i)
        q = truncation.of((likeness * target + (1 - likeness) * other).astype(np.float32))
        draft.append(q.token_at(rng.random()))
        if is_drawn[i]:
            drawn[i] = q
    found = truncation.verify_block(draft, drawn, rows, points)
    assert found is not None
    random = iter(points).__next__
    assert [*draft[: found[0]], found[1]] == verify_block(
        draft, drawn, rows, truncation.of, random, lambda _token: False
    )


def test_rows_that_lie_otherwise_in_memory_are_read_right() -> None:
    logits = row(3 * 9000, 3.0)
    for view in (logits[::3], logits[::-1], logits[1:9000]):
        assert best(view)[0] == int(view.argmax())
        found = Truncation(top_k=1, top_p=1.0, min_p=0.0, temperature=1.0).of(view)
        assert found.ids.tolist() == [int(view.argmax())]


@pytest.mark.parametrize("n", [5000, 49_152])
def test_what_is_no_numbers_is_one_line(n: int) -> None:
    with pytest.raises(MtpError, match="NaN"):
        Truncation(top_k=40, top_p=1, min_p=0, temperature=1).of(np.full(n, np.nan, np.float32))


@pytest.mark.parametrize("n", [40, 1919, 1920, 49_152, 50_001])
@pytest.mark.parametrize("k", [1, 40])
def test_a_shortlist_has_the_likeliest_and_is_short(n: int, k: int) -> None:
    logits = np.random.default_rng(n).normal(size=n).astype(np.float32)
    found = shortlist(logits, k)
    assert set(np.argsort(-logits)[:k].tolist()) <= set(found.tolist())
    assert len(set(found.tolist())) == len(found) <= max(48 * k, n // 100)


@needs_compiled
def test_what_was_built_from_other_sources_is_not_used(tmp_path: Path) -> None:
    package = Path(mtp_cli.__file__).parent
    shutil.copytree(package, tmp_path / "mtp_cli", ignore=shutil.ignore_patterns("*.gguf"))
    code = "from mtp_cli.engine.native import compiled; print(compiled.load() is None)"
    run = functools.partial(
        subprocess.run,
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run().stdout == "False\n"
    with (tmp_path / "mtp_cli/engine/native/vectors.h").open("a") as source:
        source.write("// changed\n")
    changed = run()
    assert changed.stdout == "True\n"
    assert "`make install`" in changed.stderr


def test_a_package_that_could_not_be_compiled_answers_the_same(tmp_path: Path) -> None:
    """The sources alone, as where there is no compiler."""
    package = Path(mtp_cli.__file__).parent
    without = shutil.ignore_patterns("_compiled*", "__pycache__", "*.gguf")
    shutil.copytree(package, tmp_path / "mtp_cli", ignore=without)
    code = (
        "import numpy as np\n"
        "from mtp_cli.engine.backend import our_kernels\n"
        "from mtp_cli.engine.native import compiled\n"
        "from mtp_cli.engine.sampling import truncation\n"
        "row = np.random.default_rng(5).standard_normal(9000).astype(np.float32)\n"
        "by = truncation.Truncation(top_k=9, top_p=0.9, min_p=0.0, temperature=0.5)\n"
        "found = by.of(row)\n"
        "kernels = our_kernels.install(), our_kernels.formats()\n"
        "print(compiled.load(), *kernels, truncation.best(row)[0])\n"
        "print(*found.ids)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    logits = np.random.default_rng(5).standard_normal(9000).astype(np.float32)
    kept = Truncation(top_k=9, top_p=0.9, min_p=0.0, temperature=0.5).of(logits)
    expected = f"None None () {logits.argmax()}\n{' '.join(map(str, kept.ids))}\n"
    assert done.stdout == expected
