"""A block drafter drafts what numpy says, whatever was read, drafted, rejected or taken back
before; and no answer changes by it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine import Engine
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.block import BlockDrafter, open_block
from mtp_cli.engine.files import block
from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.engine.sampling.proposals import Proposal, likeliest
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.types import Depth, Floats, HiddenSource, Ids
from mtp_cli.errors import MtpError
from tests.engine import tiny, tiny_block
from tests.engine.drafters.lasting import check_lasting
from tests.engine.drafters.numpy_block import NumpyBlock
from tests.engine.scripted import GREEDY

LAYERS = (1, 3)
TARGET = tiny.llama(n_blocks=4)
N_TEXT = 400
TEXT = tiny.random_ids(N_TEXT, seed=81)
WIDTH = len(LAYERS) * tiny.N_EMBD
ROWS = np.random.default_rng(82).normal(0, 3, (N_TEXT, WIDTH)).astype(np.float32)
TOLERANCE = 0.02  # of the deviation of a row's logits: keys and values are kept in F16
DRAFTERS: dict[str, Callable[[], tiny.Spec]] = {
    "DFlash": tiny_block.dflash,
    "DFlash of fewer ids": lambda: tiny_block.dflash(n_draft=120),
    "DFlash with the target's embedding": lambda: tiny_block.dflash(shares=True),
    "DFlash that sees back alone": lambda: tiny_block.dflash(is_causal=True),
    "DFlash with a window": lambda: tiny_block.dflash(window=16),
    "DFlash of four axes": lambda: tiny_block.dflash(is_mrope=True),
    "DFlash2": tiny_block.dflash2,
    "DSpark": tiny_block.dspark,
    "DSpark of fewer ids": lambda: tiny_block.dspark(n_draft=120),
    "DSpark without its newest place": lambda: tiny_block.dspark(
        samples_anchor=False, has_confidence=False
    ),
}
each = pytest.mark.parametrize("kind", DRAFTERS)
Open = Callable[..., BlockDrafter]


@pytest.fixture
def new_drafter(tmp_path: Path) -> Iterator[Open]:
    path = TARGET.write(tmp_path / "target.gguf")
    model = Model(path)
    targets: list[Target] = []
    drafters: list[BlockDrafter] = []

    def make(kind: str, n_ctx: int = 512) -> BlockDrafter:
        target = Target(model, n_ctx=n_ctx, n_threads=1, hidden=HiddenSource.LAYER, layers=LAYERS)
        targets.append(target)
        header = read_header(DRAFTERS[kind]().write(tmp_path / "drafter.gguf"))
        found = block.check([read_header(path)], header)
        drafters.append(open_block(target, header, found, 1, 0)[0])
        return drafters[-1]

    yield make
    for drafter in drafters:
        drafter.close()
    for target in targets:
        target.close()
    model.close()


def check_draft(
    drafter: BlockDrafter, kind: str, first: int, end: int, text: Sequence[int] = TEXT
) -> Draft:
    """Its draft after text[: end + 1] is numpy's of a drafter whose cells begin at `first`."""
    seen: list[tuple[list[int], Floats]] = []

    def propose(
        logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        seen.append((list(range(len(logits))) if ids is None else ids.tolist(), logits.copy()))
        return likeliest(logits, ids, drafted, prob)

    draft = drafter.draft(text[end], 99, propose=propose)
    assert len(draft.ids) == len(seen) == drafter.max_depth
    expected = NumpyBlock(DRAFTERS[kind](), TARGET)
    expected.take(ROWS[first:end], first)
    places = expected.draft(text[end], end, draft.ids)
    assert len(places) == len(seen)
    for (ids, found), place, prob in zip(seen, places, draft.probs, strict=True):
        can_be = np.isfinite(place.logits)
        assert ids == place.ids
        assert np.array_equal(can_be, np.isfinite(found))
        deviation = place.logits[can_be].std()
        off = np.abs(found[can_be] - place.logits[can_be]).max() / deviation
        assert off < TOLERANCE, off
        assert prob == pytest.approx(place.prob, abs=0.02)
    return draft


def show(drafter: BlockDrafter, start: int, end: int, text: Sequence[int] = TEXT) -> None:
    """The target decoded text[start:end], and gave rows of the last that it wants to see."""
    n = min(drafter.n_window, end - start)
    drafter.observe(text[start:end], start, ROWS[end - n : end])


@each
def test_it_is_the_drafter_that_numpy_computes(kind: str, new_drafter: Open) -> None:
    """A prompt, rounds, a turn that goes on."""
    drafter = new_drafter(kind)
    show(drafter, 0, 60)
    check_draft(drafter, kind, 0, 60)
    for start, end in ((60, 61), (61, 65), (65, 67)):
        show(drafter, start, end)
        check_draft(drafter, kind, 0, end)
    show(drafter, 67, 270)
    check_draft(drafter, kind, 0, 270)


@pytest.mark.parametrize("kind", ["DFlash", "DFlash of four axes", "DSpark"])
def test_a_text_that_is_taken_back_goes_on_otherwise(kind: str, new_drafter: Open) -> None:
    drafter = new_drafter(kind)
    show(drafter, 0, 50)
    check_draft(drafter, kind, 0, 50)
    drafter.truncate(31)
    check_draft(drafter, kind, 0, 31)
    other = [*TEXT[:31], *tiny.random_ids(60, seed=83)]
    show(drafter, 31, 43, other)
    check_draft(drafter, kind, 0, 43, other)
    drafter.truncate(0)
    assert not drafter.draft(TEXT[0], 4).ids
    show(drafter, 0, 5)
    check_draft(drafter, kind, 0, 5)


def test_rows_that_nobody_saw_are_left_out(new_drafter: Open) -> None:
    """Of a prompt, and where what came after them is taken back before it was read."""
    kind = "DFlash"
    drafter = new_drafter(kind)
    show(drafter, 0, 20)
    check_draft(drafter, kind, 0, 20)
    drafter.observe(TEXT[20:60], 20, ROWS[50:60])
    check_draft(drafter, kind, 50, 60)
    drafter.observe(TEXT[60:90], 60, ROWS[85:90])
    drafter.truncate(70)
    assert not drafter.draft(TEXT[70], 4).ids
    show(drafter, 70, 80)
    check_draft(drafter, kind, 70, 80)


def test_what_is_old_is_forgotten_for_what_is_new(new_drafter: Open) -> None:
    n_cells = 256  # the fewest that llama.cpp gives a context
    drafter, kind, first, end = new_drafter("DFlash", 64), "DFlash", 0, 230
    show(drafter, 0, end)
    while end < 390:
        show(drafter, end, end + 7)
        end += 7
        if end + tiny_block.SIZE - first > n_cells:
            first = end + tiny_block.SIZE - n_cells // 2
        check_draft(drafter, kind, first, end)
    assert first > 240


def test_the_comparison_can_fail() -> None:
    """Of another row, another order of layers or a cell less."""
    spec = tiny_block.dflash()

    def logits(rows: Floats, first: int) -> Floats:
        drafter = NumpyBlock(spec, TARGET)
        drafter.take(rows, first)
        return drafter.rows(TEXT[20], 20)[0]

    right = logits(ROWS[10:20], 10)
    turned = np.roll(ROWS, tiny.N_EMBD, axis=1)
    for wrong in (
        logits(ROWS[11:21], 10),
        logits(turned[10:20], 10),
        logits(ROWS[11:20], 11),
    ):
        assert np.abs(wrong - right).max() / right.std() > TOLERANCE


def test_a_chain_ends_where_another_id_is_drafted(new_drafter: Open) -> None:
    """What DSpark's next place says is of the likeliest id alone."""
    drafter = new_drafter("DSpark")
    show(drafter, 0, 20)

    def second_best(
        logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        order = np.argsort(logits)
        return Proposal(int(order[-2 if len(drafted) == 2 else -1]), prob or 0.0)

    assert len(drafter.draft(TEXT[20], 8, propose=second_best).ids) == 3


@pytest.mark.parametrize("kind", ["DFlash", "DFlash2"])
def test_other_places_follow_whatever_is_drafted(kind: str, new_drafter: Open) -> None:
    drafter = new_drafter(kind)
    show(drafter, 0, 20)

    def worst(
        logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        return Proposal(int(np.argmin(logits)), 0.0)

    draft = drafter.draft(TEXT[20], 8, propose=worst)
    expected = NumpyBlock(DRAFTERS[kind](), TARGET)
    expected.take(ROWS[:20], 0)
    places = expected.draft(TEXT[20], 20, draft.ids)
    assert draft.ids == [place.ids[int(place.logits.argmin())] for place in places]


def test_how_far_it_drafts_is_asked_of_each_id_and_costs_nothing(new_drafter: Open) -> None:
    drafter = new_drafter("DSpark")
    show(drafter, 0, 20)
    whole = drafter.draft(TEXT[20], 8)
    part = drafter.draft(TEXT[20], 8, lambda draft: len(draft.ids) < 3)
    assert part.ids == whole.ids[:3]
    assert part.probs == whole.probs[:3]
    assert whole.is_block
    assert part.is_block


# Of a window llama.cpp puts the cells elsewhere when it takes them up again: sums round otherwise.
@pytest.mark.parametrize("kind", [kind for kind in DRAFTERS if "window" not in kind])
def test_it_can_be_put_away(kind: str, new_drafter: Open) -> None:
    drafter = new_drafter(kind)
    show(drafter, 0, 33)
    drafter.draft(TEXT[33], 4)
    show(drafter, 33, 35)

    def go_on() -> list[Draft]:
        drafts = [drafter.draft(TEXT[35], 8)]
        show(drafter, 35, 38)
        return [*drafts, drafter.draft(TEXT[38], 8)]

    check_lasting(drafter, go_on)


def test_a_window_can_be_put_away(new_drafter: Open) -> None:
    kind = "DFlash with a window"
    drafter = new_drafter(kind)
    show(drafter, 0, 33)
    check_draft(drafter, kind, 0, 33)
    saved = drafter.save()
    drafter.truncate(0)
    drafter.restore(saved)
    check_draft(drafter, kind, 0, 33)
    show(drafter, 33, 36)
    check_draft(drafter, kind, 0, 36)


N_SAID = 6
Pair = Callable[[str], tuple[Path, Path]]


def of_few_ids(kind: str) -> tuple[tiny.Spec, tiny.Spec]:
    """A target that says only N_SAID ids, and a drafter that says them, too: some are accepted."""
    makers: dict[str, Callable[[], tiny.Spec]] = {
        "DFlash": lambda: tiny_block.dflash(n_draft=N_SAID),
        "DFlash2": tiny_block.dflash2,
        "DSpark": lambda: tiny_block.dspark(n_draft=N_SAID),
    }
    target, drafter = tiny.llama(n_blocks=4), makers[kind]()
    others = np.setdiff1d(np.arange(tiny.N_VOCAB), tiny.trimmed(N_SAID).draft_ids)
    target.tensors["output.weight"][others] = 0
    if kind == "DFlash2":
        drafter.tensors["output.weight"][others] = 0
    return target, drafter


@pytest.fixture(scope="module")
def files_of(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Target and drafter, written once: what was examined need not be again."""
    folder = tmp_path_factory.mktemp("block")

    @functools.cache
    def write(kind: str) -> tuple[Path, Path]:
        target, drafter = of_few_ids(kind)
        drafts = drafter.write(folder / f"{kind}.gguf")
        path = folder / "target.gguf"
        return path if path.exists() else target.write(path), drafts

    return write


of_each_kind = pytest.mark.parametrize("kind", ["DFlash", "DFlash2", "DSpark"])


def answers(files: Sequence[Path], sampling: Sampling, depth: Depth) -> tuple[list[list[int]], int]:
    """Of three turns, the second and third on what came before; and how many drafts stood."""
    prompt, turn = tiny.random_ids(70, seed=84), tiny.random_ids(9, seed=85)
    said: list[list[int]] = []
    n_accepted = 0
    with Engine.open(*files, n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        for text in (prompt, turn, turn[::-1]):
            asked = [*prompt, *said[0], *text] if said else text
            answer = engine.generate(asked, sampling, max_tokens=60, depth=depth)
            said.append([token for tokens in answer for token in tokens])
            n_accepted += sum(answer.stats.accepted)
    return said, n_accepted


@of_each_kind
@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(temperature=1.0, seed=5)], ids=["greedy", "seeded"]
)
def test_no_answer_changes(kind: str, sampling: Sampling, files_of: Pair) -> None:
    files = files_of(kind)
    plain, _ = answers(files[:1], sampling, 0)
    drafted, n_accepted = answers(files, sampling, 8)
    assert drafted == plain
    assert n_accepted > 5


@of_each_kind
def test_drafts_are_drawn_from_its_own_ids(kind: str, files_of: Pair) -> None:
    files = files_of(kind)
    said, n_accepted = answers(files, Sampling(temperature=0.8), 8)
    assert [len(ids) for ids in said] == [60, 60, 60]
    assert n_accepted > 2


@pytest.mark.parametrize("name", ["qwen2", "qwen3moe"])
def test_greedy_text_of_other_targets(name: str, tmp_path: Path) -> None:
    """Of one that hands out rows of its layers, and of one that does not."""
    targets = {
        "qwen2": lambda: tiny.qwen2(n_blocks=4),
        "qwen3moe": lambda: tiny.qwen3moe(n_blocks=4),
    }
    files = (
        targets[name]().write(tmp_path / "target.gguf"),
        tiny_block.dflash(shares=True).write(tmp_path / "drafter.gguf"),
    )
    assert answers(files, GREEDY, 8)[0] == answers(files[:1], GREEDY, 0)[0]


def test_the_row_after_the_last_layer_is_read_where_it_is_handed_out(tmp_path: Path) -> None:
    drafter = tiny_block.dflash((1, 2), shares=True).write(tmp_path / "d.gguf")
    files = tiny.mimo2().write(tmp_path / "target.gguf"), drafter
    assert answers(files, GREEDY, 8)[0] == answers(files, GREEDY, 0)[0]
    llama = tiny.llama().write(tmp_path / "llama.gguf")
    with pytest.raises(MtpError, match=r"layer 2, and llama\.gguf has 2"):
        answers((llama, drafter), GREEDY, 8)


@pytest.mark.parametrize("depth", [8, "auto"])
def test_a_recurrent_target_goes_back(depth: Depth, tmp_path: Path) -> None:
    """It keeps few states to go back to, and has positions of four axes."""
    files = (
        tiny.qwen35().write(tmp_path / "target.gguf"),
        tiny_block.dflash((1,), shares=True, is_mrope=True, size=12).write(tmp_path / "d.gguf"),
    )
    drafted, plain = answers(files, GREEDY, depth), answers(files, GREEDY, 0)
    assert drafted[0] == plain[0]
    assert all(map(tiny.is_varied, plain[0]))


@of_each_kind
def test_the_depth_policy_runs_it(kind: str, files_of: Pair) -> None:
    files = files_of(kind)
    with Engine.open(*files, n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        ids = "" if kind == "DFlash2" else f", {N_SAID} ids"
        assert engine.drafter == f"{kind}.gguf, {kind} drafter, blocks of 8{ids}"
        answer = engine.generate(TEXT[:40], GREEDY, max_tokens=100, depth="auto")
        said = [token for tokens in answer for token in tokens]
    with Engine.open(files[0], n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        answer = engine.generate(TEXT[:40], GREEDY, max_tokens=100, depth=0)
        assert said == [token for tokens in answer for token in tokens]
