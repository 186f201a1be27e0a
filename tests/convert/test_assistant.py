"""Gemma 4's assistants in the engine: they read the target's memory, and change no answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.depth.policy import FixedDepth
from mtp_cli.engine.drafters import Drafter
from mtp_cli.engine.drafters.opening import open_drafter
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.pairing import pair
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import write_checkpoint
from tests.convert.checkpoints_gemma4 import WINDOW, agreeing
from tests.convert.conftest import ASSISTANTS, Convert
from tests.convert.test_families import PROMPT

GREEDY = Sampling(temperature=0.0)
# Q8_0 gives a row the same bits alone and among others.
EXACT = Options(outtype="q8_0")
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def pair_that_agrees(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A target whose assistant is often right, as a trained one is."""
    folder = tmp_path_factory.mktemp("agreeing")
    files = []
    for name, tiny in zip(("target", "assistant"), agreeing(), strict=True):
        files.append(folder / f"{name}.gguf")
        checkpoint = open_checkpoint(write_checkpoint(folder / name, tiny))
        write(plan_checkpoint(checkpoint, EXACT), files[-1])
    return files[0], files[1]


def opened(files: Pair, n_ctx: int = 128) -> Engine:
    return Engine.open(*files, n_ctx=n_ctx, n_threads=1, n_gpu_layers=0)


@contextlib.contextmanager
def opened_parts(files: Pair) -> Iterator[tuple[Target, Drafter]]:
    pairing = pair(read_shards(files[0]), files[1])
    assert pairing is not None
    model = Model(files[0], n_gpu_layers=0)
    target = Target(model, n_ctx=128, n_threads=1, hidden=pairing.hidden)
    drafter = open_drafter(target, pairing, n_threads=1, n_gpu_layers=0)
    yield target, drafter
    for part in (drafter, target, model):
        part.close()


def answer(engine: Engine, prompt: list[int], n: int, depth: int | FixedDepth) -> list[int]:
    run = engine.generate(prompt, GREEDY, max_tokens=n, depth=depth)
    for _ in run:
        pass
    return run.tokens


@pytest.mark.parametrize("target", ASSISTANTS)
def test_drafted_greedy_output_is_plain_output(target: str, converted: Convert) -> None:
    """At every depth, far past the sliding window, with drafts that are nearly all rejected."""
    with opened((converted(target, EXACT), converted(ASSISTANTS[target], EXACT))) as engine:
        plain = answer(engine, PROMPT, 6 * WINDOW, 0)
        for depth in range(1, 9):
            run = engine.generate(PROMPT, GREEDY, max_tokens=6 * WINDOW, depth=depth)
            for _ in run:
                pass
            assert run.tokens == plain
            assert len(run.stats.verified) == depth


def test_good_drafts_save_rounds(pair_that_agrees: Pair) -> None:
    with opened(pair_that_agrees) as engine:
        assert engine.drafter == "assistant.gguf, assistant that shares the model's KV"
        plain = answer(engine, PROMPT, 80, 0)
        for depth in range(1, 9):
            run = engine.generate(PROMPT, GREEDY, max_tokens=80, depth=depth)
            for _ in run:
                pass
            assert run.tokens == plain
            assert 0.2 < run.stats.accepted[0] / run.stats.verified[0] < 1


def test_turns_that_share_a_beginning(pair_that_agrees: Pair) -> None:
    """The timeline is cut inside an answer and goes on: as if it had been read afresh."""
    with opened(pair_that_agrees) as engine, opened(pair_that_agrees) as fresh:
        first = answer(engine, PROMPT, 40, 3)
        turn = [*PROMPT, *first[:30], 90, 91, 92]
        run = engine.generate(turn, GREEDY, max_tokens=40, depth=3)
        for _ in run:
            pass
        assert run.stats.cached_tokens == len(PROMPT) + 30
        assert run.tokens == answer(fresh, turn, 40, 0)


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_a_full_context(pair_that_agrees: Pair, depth: int) -> None:
    with opened(pair_that_agrees, n_ctx=64) as engine:
        plain = engine.generate(PROMPT, GREEDY, max_tokens=500, depth=0)
        drafted = engine.generate(PROMPT, GREEDY, max_tokens=500, depth=depth)
        for run in (plain, drafted):
            for _ in run:
                pass
            assert (run.finish_reason, len(engine.cached)) == ("length", 64)
        assert drafted.tokens == plain.tokens


class _Parked(FixedDepth):
    """Drafts nothing for some rounds, then three each."""

    def __init__(self, n_rounds: int) -> None:
        super().__init__(3)
        self._rounds: Iterator[int] = iter([0] * n_rounds)

    def _most(self, room: int) -> int:
        return min(super()._most(room), next(self._rounds, 3))


def test_drafting_resumes_after_a_rest(pair_that_agrees: Pair) -> None:
    with opened(pair_that_agrees) as engine:
        plain = answer(engine, PROMPT, 60, 0)
        run = engine.generate(PROMPT, GREEDY, max_tokens=60, depth=_Parked(20))
        for _ in run:
            pass
        assert run.tokens == plain
        assert run.stats.accepted[0] > 0


def test_a_draft_depends_on_the_text_alone(pair_that_agrees: Pair) -> None:
    """Not on which rows were verified together, which were dropped, or what was drafted before."""
    text = [*PROMPT, *range(40, 70)]

    def drafts(rounds: list[tuple[list[int], int]]) -> list[list[int]]:
        """Verify each round's rows, keep some, and draft; all drafts after the last round."""
        with opened_parts(pair_that_agrees) as (target, drafter):
            rows = target.prefill(text[:20], 1, lambda: False)
            assert rows is not None
            assert rows.hidden is not None
            drafter.observe(text[19:20], 19, rows.hidden)
            for verified, n_kept in rounds:
                n_past = len(target.ids)
                drafter.draft(verified[0], 4)
                hidden = target.decode(verified).hidden
                assert hidden is not None
                drafter.observe(verified[:n_kept], n_past, hidden[:n_kept])
                target.truncate(n_past + n_kept)
            assert target.ids == text[: len(target.ids)]
            return [drafter.draft(newest, 8).ids for newest in (70, 71, 70)]

    one_by_one = drafts([([token], 1) for token in text[20:]])
    together = drafts([(text[20:28], 8), ([*text[28:30], 9, 9, 9], 2), (text[30:36], 6),
                       (text[36:44], 8), ([*text[44:48], 5], 4)])  # fmt: skip
    assert together == one_by_one
    assert one_by_one[0] == one_by_one[2] != one_by_one[1]


def test_far_beyond_the_window(pair_that_agrees: Pair) -> None:
    """The cells of sliding layers are used again by then, and a turn is cut back nonetheless."""
    prompt = [(7 * i) % 250 for i in range(900)]
    with opened(pair_that_agrees, n_ctx=1100) as engine:
        plain = answer(engine, prompt, 60, 0)
        assert answer(engine, prompt, 60, 3) == plain
        turn = [*prompt, *plain[:20], 90, 91]
        assert answer(engine, turn, 40, 3) == answer(engine, turn, 40, 0)


def test_sampled_answers_come_again(pair_that_agrees: Pair) -> None:
    warm = Sampling(temperature=0.3, top_k=4, seed=5)
    with opened(pair_that_agrees) as engine:
        first, again = (engine.generate(PROMPT, warm, max_tokens=40, depth=3) for _ in range(2))
        for run in (first, again):
            for _ in run:
                pass
        assert first.tokens == again.tokens
        assert first.stats.accepted[0] > 0
