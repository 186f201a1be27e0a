"""Heads with fewer ids in the common form (`d2t`) draft as the whole head does, in these ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.drafters.compiled_head import NativeHead, runnable
from mtp_cli.engine.drafters.mtp import N_BATCH
from mtp_cli.engine.files.beside import heads_beside
from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.engine.types import Floats, Ids
from tests.engine import tiny
from tests.engine.opening import refusal
from tests.engine.tiny_sidecar import parts

Q8_0 = gguf.GGMLQuantizationType.Q8_0
N_DRAFT = 100
# In no order
IDS: Ids = np.random.default_rng(31).permutation(tiny.N_VOCAB)[:N_DRAFT].astype(np.int32)
GREEDY = Sampling(temperature=0.0)

needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")


def whole() -> tiny.Spec:
    return tiny.heads_for(tiny.llama(), hidden="pre_norm").quantized(Q8_0)


def trimmed(spec: tiny.Spec, ids: Ids = IDS) -> tiny.Spec:
    output = spec.tensors["output.weight"][ids]
    integers = {"d2t": np.asarray(ids, np.int64)}
    return replace(spec, tensors={**spec.tensors, "output.weight": output}, integers=integers)


def opened(spec: tiny.Spec, path: Path) -> NativeHead:
    head = runnable(read_header(spec.write(path)), 64)
    assert head is not None
    return NativeHead(head, n_ctx=64, n_batch=N_BATCH, n_threads=1)


def rows(n: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, tiny.N_EMBD)).astype(np.float32)


@needs_kernels
def test_its_logits_are_the_whole_heads_at_its_ids(tmp_path: Path) -> None:
    """It reads any of the target's ids, those that it cannot draft included."""
    heads = opened(whole(), tmp_path / "a.gguf"), opened(trimmed(whole()), tmp_path / "b.gguf")
    outside = [i for i in range(tiny.N_VOCAB) if i not in IDS][:5]
    for n, position in ((5, 0), (1, 5), (5, 6)):
        for head in heads:
            head.decode(outside[:n], position, first_output=n - 1, hidden=rows(n, n))
        logits = [head.logits()[0] for head in heads]
        assert logits[1].shape == (N_DRAFT,)
        np.testing.assert_array_equal(logits[1], logits[0][IDS])
    with pytest.raises(ValueError, match="no such token"):
        heads[1].decode([tiny.N_VOCAB], 11, hidden=rows(1, 3))
    for head in heads:
        head.close()


@needs_kernels
def test_it_drafts_its_ids_and_changes_no_answer(tmp_path: Path) -> None:
    target = tiny.llama().write(tmp_path / "target.gguf")
    heads = trimmed(whole()).write(tmp_path / "mtp-target.gguf")
    assert heads_beside(target) == heads
    answers = []
    for given in (heads, None):
        with Engine.open(target, given, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
            depth = 4 if given else 0
            run = engine.generate(tiny.random_ids(20, seed=5), GREEDY, max_tokens=40, depth=depth)
            answers.append([token for tokens in run for token in tokens])
            if given:
                assert engine.drafter == "mtp-target.gguf, 1 head, 100 ids"
                assert sum(run.stats.verified) > 40
                drafter = engine._timeline.drafter
                drafter.truncate(0)
                drafter.observe([1, 2, 3], 0, rows(3, 8))
                drafted = drafter.draft(4, 4).ids
                assert len(drafted) == 4
                assert set(drafted) <= set(IDS.tolist())
    assert answers[0] == answers[1]


def _with_d2t(values: object) -> tiny.Spec:
    return replace(trimmed(whole()), integers={"d2t": np.asarray(values)})


def _of_qwen35() -> tiny.Spec:
    return trimmed(parts(tiny.qwen35())[1])


def _with_maps() -> tiny.Spec:
    spec = tiny.heads_for(tiny.llama(), hidden="pre_norm", n_draft=N_DRAFT)
    return replace(spec, integers={"d2t": np.arange(N_DRAFT)})


WRONG: dict[str, tuple[Callable[[], tiny.Spec], str]] = {
    "an id beyond the target's": (
        lambda: _with_d2t([*IDS[:-1].tolist(), tiny.N_VOCAB]),
        f"d2t: expected ids from 0 to {tiny.N_VOCAB - 1}",
    ),
    "next to no ids": (
        lambda: trimmed(whole(), IDS[:40]),
        "d2t: expected 64 ids or more, found 40",
    ),
    "an id twice": (
        lambda: _with_d2t([*IDS[:-1].tolist(), int(IDS[0])]),
        "d2t: an id is there twice",
    ),
    "other integers": (lambda: _with_d2t(IDS.astype(np.int32)), "d2t: expected int64 numbers"),
    "fewer ids than rows": (
        lambda: _with_d2t(IDS[:-1].astype(np.int64)),
        "output.weight: expected 99 rows, as d2t has",
    ),
    "maps of both forms": (_with_maps, "d2t: expected in heads without other maps only"),
    "another format": (
        lambda: trimmed(tiny.heads_for(tiny.llama(), hidden="pre_norm")),
        "fewer ids by d2t, which llama.cpp cannot run yet, and code of our own only for heads of "
        "mtp-train in q8_0; mtp-convert trim turns them into a form that runs",
    ),
}


@needs_kernels
@pytest.mark.parametrize("case", WRONG)
def test_heads_that_are_wrong(case: str, tmp_path: Path) -> None:
    build, line = WRONG[case]
    target = tiny.llama().write(tmp_path / "target.gguf")
    assert refusal(target, build().write(tmp_path / "heads.gguf")).startswith(line)


def test_heads_of_another_architecture_are_refused_and_passed_over(tmp_path: Path) -> None:
    target = parts(tiny.qwen35())[0].write(tmp_path / "target.gguf")
    heads = _of_qwen35().write(tmp_path / "mtp-target.gguf")
    assert refusal(target, heads).startswith("fewer ids by d2t, which llama.cpp cannot run yet")
    assert heads_beside(target) is None
