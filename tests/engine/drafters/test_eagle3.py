"""An EAGLE-3 drafter drafts what numpy and llama.cpp's own loop say, whatever was read, drafted,
rejected or taken back before; and no answer changes by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine import Engine
from mtp_cli.engine.backend.binding import ext, lib
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters.eagle3 import open_eagle3
from mtp_cli.engine.drafters.fused import FusedDrafter
from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.head_file import Fused
from tests.engine import tiny, tiny_eagle3
from tests.engine.drafters.numpy_eagle3 import draft_logits
from tests.engine.drafters.recorder import recorder
from tests.engine.scripted import GREEDY

LAYERS = (1, 2, 3)
TARGET = tiny.llama(n_blocks=4)
PROMPT_ROWS = 40
N_TEXT = 400
TEXT = tiny.random_ids(N_TEXT, seed=71)
WIDTH = len(LAYERS) * tiny.N_EMBD
ROWS = np.random.default_rng(72).normal(0, 3, (N_TEXT, WIDTH)).astype(np.float32)
TOLERANCE = 0.02  # of the deviation of a row's logits: keys and values are kept in F16
DRAFTERS: dict[str, Callable[[], tiny.Spec]] = {
    "its own vocabulary": tiny_eagle3.drafter,
    "fewer ids": lambda: tiny_eagle3.drafter(n_draft=120),
    "the target's embedding": lambda: tiny_eagle3.drafter(shares=True),
    "norms before": lambda: tiny_eagle3.drafter(norm_before_residual=True, norm_before_fc=True),
}
each = pytest.mark.parametrize("kind", DRAFTERS)
Open = Callable[..., FusedDrafter]


@pytest.fixture
def new_drafter(tmp_path: Path) -> Iterator[Open]:
    model = Model(TARGET.write(tmp_path / "target.gguf"))
    target = Target(model, n_ctx=512, n_threads=1, hidden=HiddenSource.LAYER, layers=LAYERS)
    drafters: list[FusedDrafter] = []

    def make(kind: str) -> FusedDrafter:
        header = read_header(DRAFTERS[kind]().write(tmp_path / "drafter.gguf"))
        drafters.append(open_eagle3(target, header, Fused(LAYERS, PROMPT_ROWS), 1, 0)[0])
        return drafters[-1]

    yield make
    for drafter in drafters:
        drafter.close()
    target.close()
    model.close()


def check_draft(
    drafter: FusedDrafter, kind: str, first: int, end: int, text: Sequence[int] = TEXT
) -> list[int]:
    """Its draft after text[: end + 1] is numpy's of a drafter whose cells begin at `first`."""
    propose, seen = recorder()

    draft = drafter.draft(text[end], 4, propose=propose)
    assert len(draft.ids) == len(seen) == 4
    rows = ROWS[first - 1 : end]
    wanted = draft_logits(
        DRAFTERS[kind](), TARGET, text[first : end + 1], rows, first, draft.ids[:-1]
    )
    for step, (found, expected) in enumerate(zip(seen, wanted, strict=True)):
        can_be = np.isfinite(expected)
        assert np.array_equal(can_be, np.isfinite(found))
        off = np.abs(found[can_be] - expected[can_be]).max() / expected[can_be].std()
        assert off < TOLERANCE, f"step {step}: {off}"
    return draft.ids


def show(
    drafter: FusedDrafter, start: int, end: int, window: int, text: Sequence[int] = TEXT
) -> None:
    """The target decoded text[start:end], and gave rows of the last `window`."""
    n = min(window, end - start)
    drafter.observe(text[start:end], start, ROWS[end - n : end])


@each
def test_it_is_the_drafter_that_numpy_computes(kind: str, new_drafter: Open) -> None:
    """A prompt's window, rounds, a turn that goes on, a prompt longer than the window."""
    drafter = new_drafter(kind)
    assert drafter.n_window == PROMPT_ROWS
    show(drafter, 0, 60, PROMPT_ROWS)
    first = 60 - PROMPT_ROWS + 1
    check_draft(drafter, kind, first, 60)
    for start, end in ((60, 61), (61, 65), (65, 67)):
        show(drafter, start, end, end - start)
        check_draft(drafter, kind, first, end)
    drafter.truncate(67)  # a turn later: the prompt goes on from here
    show(drafter, 67, 97, PROMPT_ROWS)
    check_draft(drafter, kind, first, 97)
    show(drafter, 97, 200, PROMPT_ROWS)
    check_draft(drafter, kind, 200 - PROMPT_ROWS + 1, 200)


def test_a_text_that_is_taken_back_goes_on_otherwise(new_drafter: Open) -> None:
    kind = "fewer ids"
    drafter = new_drafter(kind)
    show(drafter, 0, 50, PROMPT_ROWS)
    check_draft(drafter, kind, 11, 50)
    drafter.truncate(31)
    other = [*TEXT[:31], *tiny.random_ids(60, seed=73)]
    show(drafter, 31, 43, PROMPT_ROWS, other)
    check_draft(drafter, kind, 11, 43, other)
    drafter.truncate(0)
    show(drafter, 0, 5, PROMPT_ROWS)
    check_draft(drafter, kind, 1, 5)


def test_the_comparison_can_fail() -> None:
    """Of another row, another order of layers or a cell less."""
    spec = tiny_eagle3.drafter()
    right = draft_logits(spec, TARGET, TEXT[10:20], ROWS[9:19], 10, [])[0]
    turned = np.roll(ROWS, tiny.N_EMBD, axis=1)
    for tokens, rows, first in (
        (TEXT[10:20], ROWS[10:20], 10),
        (TEXT[10:20], turned[9:19], 10),
        (TEXT[11:20], ROWS[10:19], 11),
    ):
        wrong = draft_logits(spec, TARGET, tokens, rows, first, [])[0]
        assert np.abs(wrong - right).max() / right.std() > TOLERANCE


class LlamaCppLoop:
    """llama.cpp's own way (common/speculative.cpp), by its C functions alone: all rows of a text
    are encoded, the token after each is read beside it, the last waits for the newest id."""

    def __init__(self, target: Target, path: Path) -> None:
        self._model = lib.llama_model_load_from_file(
            str(path).encode(), lib.llama_model_default_params()
        )
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads = 512, 512, 512, 1
        params.ctx_other = target.context.handle
        self._context = lib.llama_init_from_model(self._model, params)
        ext.llama_set_embeddings_nextn(self._context, True, True)
        self._width = int(lib.llama_model_n_embd(self._model))
        self._n_vocab = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model)))

    def _run(
        self, run: Callable[..., int], rows: Floats, tokens: Sequence[int], first: int, output: bool
    ) -> None:
        given = np.ascontiguousarray(rows, np.float32)
        batch = lib.llama_batch_init(len(rows), given.shape[1], 1)
        ids = (lib.llama_token * len(rows))(*tokens)
        batch.n_tokens = len(rows)
        if tokens:
            batch.token = ids
        for index in range(len(rows)):
            batch.pos[index], batch.n_seq_id[index] = first + index, 1
            batch.seq_id[index][0], batch.logits[index] = 0, output
        lib.ctypes.memmove(batch.embd, given.ctypes.data, given.nbytes)
        assert run(self._context, batch) == 0
        batch.token = None  # not malloc's
        lib.llama_batch_free(batch)

    def _own_row(self, n_rows: int = 1) -> Floats:
        pointer = ext.llama_get_embeddings_nextn(self._context)
        return np.ctypeslib.as_array(pointer, (n_rows, self._width)).copy()

    def draft(self, text: Sequence[int], rows: Floats, newest: int, n: int) -> list[int]:
        """rows: (len(text), n_layers * n_embd), the target's"""
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        self._run(lib.llama_encode, rows, [], 0, True)
        encoded = self._own_row(len(rows))
        self._run(lib.llama_decode, encoded[:-1], text[1:], 0, False)
        ids, token, row = list[int](), newest, encoded[-1:]
        for position in range(len(text) - 1, len(text) - 1 + n):
            self._run(lib.llama_decode, row, [token], position, True)
            logits = lib.llama_get_logits(self._context)
            token = int(np.argmax(np.ctypeslib.as_array(logits, (self._n_vocab,))))
            row = self._own_row()
            ids.append(token)
        return ids

    def close(self) -> None:
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)


@each
def test_it_drafts_what_llama_cpp_drafts(kind: str, tmp_path: Path) -> None:
    """With rows of a real target, through rounds in which ids are accepted and rejected."""
    path = DRAFTERS[kind]().write(tmp_path / "drafter.gguf")
    model = Model(TARGET.write(tmp_path / "target.gguf"))
    target = Target(model, n_ctx=512, n_threads=1, hidden=HiddenSource.LAYER, layers=LAYERS)
    drafter, _ = open_eagle3(target, read_header(path), Fused(LAYERS, 256), 1, 0)
    loop = LlamaCppLoop(target, path)
    seen = target.prefill(TEXT[:50], 256, lambda: False)
    assert seen is not None
    assert seen.hidden is not None
    rows = seen.hidden.copy()
    drafter.observe(TEXT[:50], 0, rows)
    for end in (50, 51, 54, 60):
        ids = drafter.draft(TEXT[end], 5).ids
        assert ids == loop.draft(TEXT[:end], rows, TEXT[end], 5)
        decoded = target.decode(TEXT[end : {50: 51, 51: 54, 54: 60}.get(end, end + 1)]).hidden
        assert decoded is not None
        drafter.observe(TEXT[end : end + len(decoded)], end, decoded)
        rows = np.concatenate([rows, decoded])
    for opened in (loop, drafter, target, model):
        opened.close()


def of_few_ids(n: int) -> tuple[tiny.Spec, tiny.Spec]:
    """A target that says only n ids, which its drafter drafts in: some are accepted."""
    drafter, target = tiny_eagle3.drafter(n_draft=n), tiny.llama(n_blocks=4)
    others = np.setdiff1d(np.arange(tiny.N_VOCAB), drafter.integers["d2t"])
    target.tensors["output.weight"][others] = 0
    return target, drafter


def answers(files: Sequence[Path], sampling: Sampling, depth: int) -> tuple[list[list[int]], int]:
    """Of three turns, the second and third on what came before; and how many drafts stood."""
    prompt, turn = tiny.random_ids(70, seed=74), tiny.random_ids(9, seed=75)
    said: list[list[int]] = []
    n_accepted = 0
    with Engine.open(*files, n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        for text in (prompt, turn, turn[::-1]):
            asked = [*prompt, *said[0], *text] if said else text
            answer = engine.generate(asked, sampling, max_tokens=60, depth=depth)
            said.append([token for tokens in answer for token in tokens])
            n_accepted += sum(answer.stats.accepted)
    return said, n_accepted


@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(temperature=1.0, seed=5)], ids=["greedy", "seeded"]
)
def test_no_answer_changes(sampling: Sampling, tmp_path: Path) -> None:
    target, drafter = of_few_ids(6)
    files = target.write(tmp_path / "target.gguf"), drafter.write(tmp_path / "drafter.gguf")
    plain, _ = answers(files[:1], sampling, 0)
    drafted, n_accepted = answers(files, sampling, 3)
    assert drafted == plain
    assert n_accepted > 10


def test_drafts_are_drawn_from_its_own_ids(tmp_path: Path) -> None:
    target, drafter = of_few_ids(6)
    files = target.write(tmp_path / "target.gguf"), drafter.write(tmp_path / "drafter.gguf")
    said, n_accepted = answers(files, Sampling(temperature=0.8), 3)
    assert [len(ids) for ids in said] == [60, 60, 60]
    assert n_accepted > 10


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3moe"])
def test_greedy_text_of_other_targets(name: str, tmp_path: Path) -> None:
    """Of those that hand out rows of their layers, and of one that does not."""
    targets = {
        "llama": lambda: tiny.llama(n_blocks=4),
        "qwen2": lambda: tiny.qwen2(n_blocks=4),
        "qwen3moe": lambda: tiny.qwen3moe(n_blocks=4),
    }
    files = (
        targets[name]().write(tmp_path / "target.gguf"),
        tiny_eagle3.drafter(n_draft=120).write(tmp_path / "drafter.gguf"),
    )
    assert answers(files, GREEDY, 3)[0] == answers(files[:1], GREEDY, 0)[0]


def test_the_depth_policy_runs_it(tmp_path: Path) -> None:
    target, drafter = of_few_ids(3)
    files = target.write(tmp_path / "target.gguf"), drafter.write(tmp_path / "drafter.gguf")
    with Engine.open(*files, n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        assert engine.drafter == "drafter.gguf, EAGLE-3 drafter, 3 ids"
        answer = engine.generate(TEXT[:40], GREEDY, max_tokens=100, depth="auto")
        said = [token for tokens in answer for token in tokens]
    with Engine.open(files[0], n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        answer = engine.generate(TEXT[:40], GREEDY, max_tokens=100, depth=0)
        assert said == [token for tokens in answer for token in tokens]
