"""A head that fuses rows of several layers drafts what numpy says, on llama.cpp's graph and in our
compiled code, whatever was read, drafted, rejected or taken back before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from mtp_cli.engine import Engine
from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.drafters import compiled_head
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.compiled_head import NativeHead, runnable
from mtp_cli.engine.drafters.fused import FusedDrafter
from mtp_cli.engine.drafters.fusion import CompiledFusion, NumpyFusion, open_fusion
from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.drafters.mtp import N_WAITING
from mtp_cli.engine.files.fused_heads import for_llama_cpp
from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.engine.types import HeadContext, HiddenSource
from tests.engine import tiny
from tests.engine.drafters.kept_weights import as_kept
from tests.engine.drafters.lasting import check_lasting
from tests.engine.drafters.numpy_head import NumpyHead, draft_logits
from tests.engine.drafters.recorder import recorder
from tests.engine.scripted import GREEDY

Q8_0 = gguf.GGMLQuantizationType.Q8_0
LAYERS = (1, 2, 3)
PROMPT_ROWS = 40
N_TEXT = 500
TEXT = tiny.random_ids(N_TEXT, seed=61)
WIDTH = len(LAYERS) * tiny.N_EMBD
ROWS = np.random.default_rng(62).normal(0, 3, (N_TEXT, WIDTH)).astype(np.float32)
# Of the deviation of a row's logits; rounding to eight bits grows from step to step.
TOLERANCE = {"generic": (0.02, 0.02), "compiled": (0.2, 1.0)}  # the first step's, later ones'
needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")
both = pytest.mark.parametrize("way", ["generic", pytest.param("compiled", marks=needs_kernels)])
Open = Callable[..., FusedDrafter]


def plain_spec() -> tiny.Spec:
    return tiny.fused_heads_for(tiny.llama(n_blocks=4), LAYERS, prompt_rows=PROMPT_ROWS)


def spec_of(way: str) -> tiny.Spec:
    """The head as it is computed with: what the numbers of a quantized one really are."""
    spec = plain_spec()
    if way == "generic":
        return spec
    kept = {name: as_kept(name, values) for name, values in spec.tensors.items()}
    return dataclasses.replace(spec, tensors=kept)


@pytest.fixture
def new_drafter(tmp_path: Path) -> Iterator[Open]:
    drafters: list[FusedDrafter] = []

    def make(way: str, n_ctx: int = 256, n_batch: int = 48) -> FusedDrafter:
        spec = plain_spec() if way == "generic" else plain_spec().quantized(Q8_0)
        header = read_header(spec.write(tmp_path / f"{way}.gguf"))
        context: HeadContext
        if way == "compiled":
            found = runnable(header, n_ctx)
            assert found is not None
            context = NativeHead(found, n_ctx=n_ctx, n_batch=n_batch, n_threads=2)
        else:
            with for_llama_cpp(header.path) as path:
                model = Model(path)
            context = Context(
                model,
                n_ctx=n_ctx,
                n_batch=n_batch,
                n_outputs=1,
                n_threads=1,
                hidden=HiddenSource.NEXTN,
                mtp=True,
                owns_model=True,
            )
        fusion = open_fusion(header, n_batch, 2)
        assert isinstance(fusion, CompiledFusion if way == "compiled" else NumpyFusion)
        drafters.append(
            FusedDrafter(context, fusion, ids=HeadIds(), prompt_rows=PROMPT_ROWS, n_batch=n_batch)
        )
        return drafters[-1]

    yield make
    for drafter in drafters:
        drafter.close()


def check_draft(
    drafter: FusedDrafter, way: str, first: int, end: int, text: Sequence[int] = TEXT
) -> list[int]:
    """Its draft after text[: end + 1] is numpy's of a head whose cells begin at `first`."""
    propose, seen = recorder()

    draft = drafter.draft(text[end], 4, propose=propose)
    assert len(draft.ids) == len(seen) == 4
    rows = ROWS[first - 1 : end]
    wanted = draft_logits(spec_of(way), text[first : end + 1], rows, first, draft.ids[:-1])
    for step, (found, expected) in enumerate(zip(seen, wanted, strict=True)):
        off = np.abs(found - expected).max() / expected.std()
        assert off < TOLERANCE[way][step > 0], f"step {step}: {off}"
    return draft.ids


def show(
    drafter: FusedDrafter, start: int, end: int, window: int, text: Sequence[int] = TEXT
) -> None:
    """The target decoded text[start:end], and gave rows of the last `window`."""
    n = min(window, end - start)
    drafter.observe(text[start:end], start, ROWS[end - n : end])


@both
def test_it_is_the_head_that_numpy_computes(way: str, new_drafter: Open) -> None:
    """A prompt's window, rounds, a turn that goes on, a prompt longer than the window."""
    drafter = new_drafter(way)
    assert drafter.n_window == PROMPT_ROWS
    show(drafter, 0, 60, PROMPT_ROWS)
    first = 60 - PROMPT_ROWS + 1
    check_draft(drafter, way, first, 60)
    for start, end in ((60, 61), (61, 65), (65, 67)):
        show(drafter, start, end, end - start)
        check_draft(drafter, way, first, end)
    drafter.truncate(67)  # a turn later: the prompt goes on from here
    show(drafter, 67, 97, PROMPT_ROWS)
    check_draft(drafter, way, first, 97)
    show(drafter, 97, 200, PROMPT_ROWS)
    check_draft(drafter, way, 200 - PROMPT_ROWS + 1, 200)


@both
def test_nothing_is_forgotten_while_nothing_is_drafted(way: str, new_drafter: Open) -> None:
    drafter = new_drafter(way)
    show(drafter, 0, 30, PROMPT_ROWS)
    for position in range(30, 30 + 2 * N_WAITING + 5):
        show(drafter, position, position + 1, 1)
        assert drafter.n_waiting < N_WAITING
    check_draft(drafter, way, 1, 30 + 2 * N_WAITING + 5)


@both
@pytest.mark.parametrize("n_kept", [55, 45, 31])
def test_a_text_that_is_taken_back_goes_on_otherwise(
    way: str, n_kept: int, new_drafter: Open
) -> None:
    """As after /undo or an edit: what stood before it is still remembered."""
    drafter = new_drafter(way)
    show(drafter, 0, 50, PROMPT_ROWS)
    check_draft(drafter, way, 11, 50)
    show(drafter, 50, 58, 8)
    drafter.truncate(n_kept)
    other = [*TEXT[:n_kept], *tiny.random_ids(60, seed=63)]
    show(drafter, n_kept, n_kept + 12, PROMPT_ROWS, other)
    check_draft(drafter, way, 11, n_kept + 12, other)


@both
def test_taken_back_to_before_all_it_knows(way: str, new_drafter: Open) -> None:
    drafter = new_drafter(way)
    show(drafter, 0, 90, PROMPT_ROWS)
    check_draft(drafter, way, 51, 90)
    drafter.truncate(20)
    assert drafter.draft(TEXT[20], 3).ids == [], "no row of position 19"
    show(drafter, 20, 21, 1)
    check_draft(drafter, way, 21, 21)
    drafter.truncate(0)
    show(drafter, 0, 5, PROMPT_ROWS)
    check_draft(drafter, way, 1, 5)


@both
def test_a_full_context_forgets_its_older_half(way: str, new_drafter: Open) -> None:
    drafter = new_drafter(way, n_ctx=256)
    show(drafter, 0, 50, PROMPT_ROWS)
    for start in range(50, 262, 20):
        show(drafter, start, min(start + 20, 262), 20)
    check_draft(drafter, way, 11, 262)  # 256 cells, with the drafted ones
    show(drafter, 262, 270, 8)
    check_draft(drafter, way, 275 - 128, 270)


@both
def test_what_was_drafted_and_rejected_leaves_no_trace(way: str, new_drafter: Open) -> None:
    drafter = new_drafter(way)
    show(drafter, 0, 20, PROMPT_ROWS)
    for end in (20, 21, 22, 23):
        drafted = check_draft(drafter, way, 1, end)
        assert drafted != TEXT[end + 1 : end + 5]
        show(drafter, end, end + 1, 1)
    assert drafter.n_waiting == 0


def test_the_comparison_can_fail() -> None:
    """Of another row, another order of layers or a cell more or less."""
    spec = plain_spec()
    right = draft_logits(spec, TEXT[10:20], ROWS[9:19], 10, [])[0]
    turned = np.roll(ROWS, tiny.N_EMBD, axis=1)
    for tokens, rows, first in (
        (TEXT[10:20], ROWS[10:20], 10),
        (TEXT[10:20], turned[9:19], 10),
        (TEXT[11:20], ROWS[10:19], 11),
    ):
        wrong = draft_logits(spec, tokens, rows, first, [])[0]
        assert np.abs(wrong - right).max() / right.std() > max(TOLERANCE["compiled"])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_fusion_in_every_format(
    kind: str, is_compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = plain_spec().quantized(gguf.GGMLQuantizationType[kind])
    header = read_header(spec.write(tmp_path / "heads.gguf"))
    if not is_compiled:
        monkeypatch.setattr(compiled_head, "usable", lambda: None)
    fusion = open_fusion(header, 7, 3)
    found = fusion.rows(ROWS[:7])
    fusion.use_threads(1)
    assert np.abs(fusion.rows(ROWS[:1]) - found[:1]).max() < 1e-4
    fusion.close()
    is_kept = isinstance(fusion, CompiledFusion)
    spec = spec_of("compiled" if is_kept else "generic")
    wanted = np.stack([NumpyHead(spec, 0).fuse(row) for row in ROWS[:7]])
    assert np.abs(found - wanted).max() / wanted.std() < 0.05


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_final_rows_are_normed_and_added_to_the_fused_ones(
    kind: str, n_threads: int, tmp_path: Path
) -> None:
    """In numpy, and in compiled code where there is any."""
    spec = tiny.fused_heads_for(tiny.llama(n_blocks=4), LAYERS, with_final=True)
    spec, plain = (s.quantized(gguf.GGMLQuantizationType[kind]) for s in (spec, plain_spec()))
    fusion = open_fusion(read_header(spec.write(tmp_path / "heads.gguf")), 7, n_threads)
    alone = open_fusion(read_header(plain.write(tmp_path / "alone.gguf")), 7, n_threads)
    assert fusion.width == WIDTH + tiny.N_EMBD
    final = np.random.default_rng(66).normal(0, 3, (5, tiny.N_EMBD)).astype(np.float32)
    final[[0, 3]] = 0  # rows that are no outputs
    unit = final / np.sqrt(np.mean(final**2, axis=1, keepdims=True) + 1e-5)
    fused = alone.rows(ROWS[:5])
    wanted = fused + unit * spec.tensors["mtp.final_norm.weight"]
    found = fusion.rows(np.concatenate((ROWS[:5], final), axis=1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[[0, 3]], fused[[0, 3]])
    fusion.close()
    alone.close()


@needs_kernels
def test_rows_that_a_fusion_cannot_take(tmp_path: Path) -> None:
    spec = plain_spec().quantized(Q8_0)
    fusion = open_fusion(read_header(spec.write(tmp_path / "heads.gguf")), 4, 1)
    for rows in (ROWS[:5], ROWS[:2, :-1], ROWS[0]):
        with pytest.raises(ValueError, match="at most 4 rows of 192 values"):
            fusion.rows(rows)
    fusion.close()


TARGETS = {"llama": lambda: tiny.llama(n_blocks=4), "qwen2": lambda: tiny.qwen2(n_blocks=4)}


@both
@pytest.mark.parametrize("with_final", [False, True])
@pytest.mark.parametrize("name", TARGETS)
def test_greedy_text_is_the_same_with_and_without(
    way: str, name: str, with_final: bool, tmp_path: Path
) -> None:
    """Through the engine: prompts, turns, an answer taken back, heads opened from their file."""
    target = TARGETS[name]()
    heads = tiny.fused_heads_for(
        target, LAYERS, prompt_rows=PROMPT_ROWS, n_draft=120, with_final=with_final
    )
    if way == "compiled":
        heads = heads.quantized(Q8_0)
    files = target.write(tmp_path / "target.gguf"), heads.write(tmp_path / "heads.gguf")
    prompt, turn = tiny.random_ids(70, seed=64), tiny.random_ids(9, seed=65)
    texts = []
    for drafts in (False, True):
        with Engine.open(
            files[0], files[1] if drafts else None, n_ctx=512, n_threads=1, n_gpu_layers=0
        ) as engine:
            drafter = engine._timeline.drafter
            if drafts:
                assert isinstance(drafter, FusedDrafter)
                assert isinstance(drafter._context, NativeHead if way == "compiled" else Context)
                assert engine.drafter == "heads.gguf, 1 head, 120 ids, rows of 3 layers"
            said: list[list[int]] = []
            for text in (prompt, turn, turn[::-1]):
                before = prompt if said else []
                asked = [*before, *said[0], *text] if said else text
                answer = engine.generate(asked, GREEDY, max_tokens=40, depth=3 * drafts)
                said.append([token for tokens in answer for token in tokens])
                assert sum(answer.stats.verified) > 0 or not drafts
            texts.append(said)
    assert texts[0] == texts[1]
    assert tiny.is_varied(texts[0][0])


@both
def test_it_is_taken_up_as_it_was_put_away(way: str, new_drafter: Open) -> None:
    drafter = new_drafter(way)
    show(drafter, 0, 60, PROMPT_ROWS)
    drafter.draft(TEXT[60], 3)
    show(drafter, 60, 62, 2)

    def go_on() -> list[Draft]:
        drafts = [drafter.draft(TEXT[62], 3)]
        show(drafter, 62, 65, 3)
        drafter.truncate(63)
        show(drafter, 63, 66, 3)
        return [*drafts, drafter.draft(TEXT[66], 3)]

    check_lasting(drafter, go_on)
