"""The heads' KV holds the true text: a head that followed a long history drafts what a fresh head
that was shown the same rows drafts, whatever was drafted, rejected, parked or taken back between.

The rows are made up: what the drafter does with them is the same for any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pytest

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.compiled_head import NativeHead, runnable
from mtp_cli.engine.drafters.mtp import N_BATCH, N_FORGOTTEN, N_WAITING, MtpDrafter
from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.engine.sampling.proposals import likeliest
from mtp_cli.engine.types import MAX_DEPTH, Floats, HiddenSource
from tests.engine import tiny
from tests.engine.conftest import Files, Models
from tests.engine.drafters.lasting import check_lasting

# heads by kind: the tiny model that holds them, and how many are chained
HEADS = {"reused": ("qwen35", 1), "chained": ("mimo2", 3), "beside": ("heads", 1)}
NATIVE = "native"  # in code of our own
needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")
every_kind = pytest.mark.parametrize("kind", [*HEADS, pytest.param(NATIVE, marks=needs_kernels)])


class Drafters(Protocol):
    def __call__(self, kind: str, n_ctx: int = 1024) -> MtpDrafter: ...


N_TEXT = 900
TEXT = tiny.random_ids(N_TEXT, seed=41)
ROWS = np.random.default_rng(42).standard_normal((N_TEXT, tiny.N_EMBD)).astype(np.float32)
TOLERANCE = 0.01  # of a probability: rows read in one batch or in many round differently


@pytest.fixture
def new_drafter(tiny_model: Models, tiny_file: Files) -> Iterator[Drafters]:
    drafters: list[MtpDrafter] = []

    def make(kind: str, n_ctx: int = 1024) -> MtpDrafter:
        if kind == NATIVE:
            found = runnable(read_header(tiny_file("heads-q8_0")), n_ctx)
            assert found is not None
            head = NativeHead(found, n_ctx=n_ctx, n_batch=N_BATCH, n_threads=1)
            drafters.append(MtpDrafter(head))
            return drafters[-1]
        name, n_chained = HEADS[kind]
        context = Context(
            tiny_model(name),
            n_ctx=n_ctx,
            n_batch=N_BATCH,
            n_outputs=1,
            n_threads=1,
            hidden=HiddenSource.NEXTN,
            mtp=True,
        )
        drafters.append(MtpDrafter(context, n_chained=n_chained))
        return drafters[-1]

    yield make
    for drafter in drafters:
        drafter.close()


def show(drafter: MtpDrafter, start: int, end: int, text: list[int] = TEXT) -> None:
    drafter.observe(text[start:end], start, ROWS[start:end])


def fresh_draft(drafter: MtpDrafter, start: int, end: int, text: list[int] = TEXT) -> Draft:
    """What is drafted after text[start : end + 1] by a head that saw nothing else."""
    for piece in range(start, end, N_WAITING // 2):
        show(drafter, piece, min(piece + N_WAITING // 2, end), text)
        draft = drafter.draft(text[min(piece + N_WAITING // 2, end)], MAX_DEPTH)
    return draft


def assert_same(found: Draft, expected: Draft) -> None:
    assert found.ids == expected.ids
    # Each step reads the row of the one before it, so rounding grows from step to step.
    assert np.abs(np.subtract(found.probs, expected.probs))[:3].max() < TOLERANCE


@every_kind
def test_it_drafts_as_many_ids_as_asked(new_drafter: Drafters, kind: str) -> None:
    drafter = new_drafter(kind)
    most = 3 if kind == "chained" else MAX_DEPTH
    assert drafter.max_depth == most
    assert drafter.draft(TEXT[0], 3) == Draft(), "it has seen no row yet"
    show(drafter, 0, 20)
    for depth in (0, 1, 2, 3, 8, 50):
        draft = drafter.draft(TEXT[20], depth)
        assert len(draft.ids) == len(draft.probs) == min(depth, most)
        assert all(0 < p <= 1 for p in draft.probs)
        show(drafter, 20, 20)


@every_kind
def test_a_deeper_draft_begins_like_a_shallow_one(new_drafter: Drafters, kind: str) -> None:
    deep = fresh_draft(new_drafter(kind), 0, 30)
    for depth in range(1, len(deep.ids)):
        drafter = new_drafter(kind)
        show(drafter, 0, 30)
        draft = drafter.draft(TEXT[30], depth)
        assert_same(draft, Draft(deep.ids[:depth], deep.probs[:depth]))


@every_kind
def test_keep_going_ends_a_draft(new_drafter: Drafters, kind: str) -> None:
    drafter, seen = new_drafter(kind), []

    def keep_going(draft: Draft) -> bool:
        seen.append(len(draft.ids))
        return len(draft.ids) < 2

    show(drafter, 0, 30)
    draft = drafter.draft(TEXT[30], 3, keep_going)
    assert seen == [1, 2]
    deep = fresh_draft(new_drafter(kind), 0, 30)
    assert_same(draft, Draft(deep.ids[:2], deep.probs[:2]))


@every_kind
def test_rounds_of_rejected_and_accepted_drafts(new_drafter: Drafters, kind: str) -> None:
    """What the head made up while drafting is replaced by the true rows."""
    drafter, rng, n_past = new_drafter(kind), np.random.default_rng(43), 24
    show(drafter, 0, n_past)
    for _ in range(40):
        drafter.draft(TEXT[n_past], int(rng.integers(1, MAX_DEPTH + 1)))
        n_rows = int(rng.integers(1, MAX_DEPTH + 2))
        show(drafter, n_past, n_past + n_rows)
        n_past += n_rows

    assert_same(drafter.draft(TEXT[n_past], 8), fresh_draft(new_drafter(kind), 0, n_past))


@every_kind
def test_rows_that_no_one_saw_end_what_was_known(new_drafter: Drafters, kind: str) -> None:
    """A prompt's, between two answers: the row before it is not the newest token's."""
    drafter = new_drafter(kind)
    show(drafter, 0, 30)
    drafter.draft(TEXT[30], 3)
    show(drafter, 30, 32)
    drafter.truncate(32)
    show(drafter, 60, 70)
    assert_same(drafter.draft(TEXT[70], 8), fresh_draft(new_drafter(kind), 60, 70))


def test_a_row_that_is_no_numbers_promises_nothing() -> None:
    assert likeliest(np.full(5, np.nan, np.float32), None).prob == 0


@every_kind
def test_a_full_context_forgets_its_older_half(new_drafter: Drafters, kind: str) -> None:
    n_ctx, n_past = 256, 24
    drafter = new_drafter(kind, n_ctx)
    show(drafter, 0, n_past)
    lengths = set()
    while n_past + 4 < N_TEXT - MAX_DEPTH:
        lengths.add(len(drafter.draft(TEXT[n_past], 2).ids))
        show(drafter, n_past, n_past + 4)
        n_past += 4
    assert lengths == {2}

    draft = drafter.draft(TEXT[n_past], 8)
    starts = range(n_past - n_ctx, n_past - n_ctx // 2 + MAX_DEPTH + 8)
    fresh, remembered = new_drafter(kind), []
    for start in starts:
        fresh.truncate(0)
        remembered.append(fresh_draft(fresh, start, n_past))
    off = [np.abs(np.subtract(draft.probs, other.probs)).max() for other in remembered]
    assert min(off) < 3 * TOLERANCE
    # what it forgot counted
    assert np.abs(np.subtract(remembered[0].probs, remembered[-1].probs)).max() > 6 * TOLERANCE


@every_kind
def test_the_rows_matter(new_drafter: Drafters, kind: str) -> None:
    """The comparisons here can fail: another token or another row far back changes the draft."""
    expected = fresh_draft(new_drafter(kind), 0, 30)
    other_text = [*TEXT[:29], (TEXT[29] + 1) % tiny.EOS, *TEXT[30:]]
    other = fresh_draft(new_drafter(kind), 0, 30, other_text)
    shorter = fresh_draft(new_drafter(kind), 8, 30)
    for changed in (other, shorter):
        assert np.abs(np.subtract(changed.probs, expected.probs))[:3].max() > 2 * TOLERANCE


@every_kind
@pytest.mark.parametrize("n_parked", [1, N_WAITING - 24, N_WAITING - 23, N_WAITING])
def test_rounds_without_a_draft_are_caught_up(
    new_drafter: Drafters, kind: str, n_parked: int
) -> None:
    drafter, n_past = new_drafter(kind), 24
    show(drafter, 0, n_past)
    drafter.draft(TEXT[n_past], 2)
    for _ in range(n_parked):
        assert drafter.draft(TEXT[n_past], 0) == Draft()
        show(drafter, n_past, n_past + 1)
        n_past += 1
    assert drafter.n_waiting == n_parked - 1

    assert_same(drafter.draft(TEXT[n_past], 8), fresh_draft(new_drafter(kind), 0, n_past))


@every_kind
@pytest.mark.parametrize("n_parked", range(N_WAITING - 2, N_BATCH + 3))
def test_parked_so_long_that_it_forgets(new_drafter: Drafters, kind: str, n_parked: int) -> None:
    """Rows that fall out of the waiting room leave a gap; the head starts anew behind it."""
    drafter, n_past = new_drafter(kind), 24
    show(drafter, 0, n_past)
    drafter.draft(TEXT[n_past], 2)
    for _ in range(n_parked):
        show(drafter, n_past, n_past + 1)
        n_past += 1
    waiting = drafter.n_waiting
    assert waiting <= N_WAITING
    draft = drafter.draft(TEXT[n_past], 8)
    assert len(draft.ids) == drafter.max_depth
    read = waiting + 1 if waiting < n_parked - 1 else n_past
    if waiting == N_WAITING:  # the newest pushed out the oldest
        read = N_WAITING - N_FORGOTTEN + 1

    assert_same(draft, fresh_draft(new_drafter(kind), n_past - read, n_past))
    show(drafter, n_past, n_past + 1)
    assert len(drafter.draft(TEXT[n_past + 1], 8).ids) == drafter.max_depth


@every_kind
@pytest.mark.parametrize("kept", [1, 20, 29, 30, 34, 36])
def test_a_truncated_text_goes_on_differently(new_drafter: Drafters, kind: str, kept: int) -> None:
    """As /undo: what was dropped is forgotten, what was kept is not."""
    drafter = new_drafter(kind)
    show(drafter, 0, 30)
    drafter.draft(TEXT[30], 3)
    show(drafter, 30, 36)
    drafter.truncate(kept)
    text = [*TEXT[:kept], *tiny.random_ids(80, seed=44)]
    # The row before `kept` may be gone: the first position after it cannot be read then.
    drafter.observe(text[kept : kept + 20], kept, ROWS[kept : kept + 20])
    draft = drafter.draft(text[kept + 20], 8)

    if kept == 36:
        expected = fresh_draft(new_drafter(kind), 0, 56, text)
    else:
        expected = fresh_draft(new_drafter(kind), kept, kept + 20, text)
    assert_same(draft, expected)


@every_kind
def test_a_prompt_of_which_it_sees_the_end(new_drafter: Drafters, kind: str) -> None:
    """The next turn is longer than the window that the head is shown of it."""
    drafter = new_drafter(kind)
    show(drafter, 0, 30)
    drafter.draft(TEXT[30], 3)
    show(drafter, 30, 33)
    show(drafter, 300, 332)
    assert_same(drafter.draft(TEXT[332], 8), fresh_draft(new_drafter(kind), 300, 332))
    show(drafter, 332, 335)
    assert_same(drafter.draft(TEXT[335], 8), fresh_draft(new_drafter(kind), 300, 335))


@every_kind
def test_past_the_end_of_its_context(new_drafter: Drafters, kind: str) -> None:
    """Where the target's ends is the loop's to know."""
    drafter, text = new_drafter(kind), TEXT + TEXT
    rows: Floats = np.concatenate([ROWS, ROWS])
    for start in range(0, 1000, 25):
        drafter.observe(text[start : start + 25], start, rows[start : start + 25])
        drafter.draft(text[start + 25], 2)
    for n_past in range(1000, 1040):
        assert len(drafter.draft(text[n_past], 8).ids) == drafter.max_depth
        drafter.observe(text[n_past : n_past + 1], n_past, rows[n_past : n_past + 1])


@every_kind
def test_it_is_taken_up_as_it_was_put_away(new_drafter: Drafters, kind: str) -> None:
    drafter = new_drafter(kind)
    show(drafter, 0, 30)
    drafter.draft(TEXT[30], 3)  # cells of its own rows are put away too
    show(drafter, 30, 32)

    def go_on() -> list[Draft]:
        drafts = [drafter.draft(TEXT[32], 3)]
        show(drafter, 32, 34)
        return [*drafts, drafter.draft(TEXT[34], 3)]

    check_lasting(drafter, go_on)


@every_kind
def test_one_that_has_read_nothing_is_taken_up_as_well(new_drafter: Drafters, kind: str) -> None:
    drafter = new_drafter(kind)

    def go_on() -> list[Draft]:
        show(drafter, 0, 20)
        return [drafter.draft(TEXT[20], 3)]

    check_lasting(drafter, go_on)


@every_kind
def test_a_state_that_finds_no_room_makes_it_start_anew(new_drafter: Drafters, kind: str) -> None:
    large, small = new_drafter(kind), new_drafter(kind, n_ctx=256)
    for start in range(0, 600, N_WAITING // 2):
        show(large, start, start + N_WAITING // 2)
        large.draft(TEXT[start + N_WAITING // 2], 1)
    end = start + N_WAITING // 2
    small.restore(large.save())
    show(small, end, end + 20)
    assert len(small.draft(TEXT[end + 20], 3).ids) == 3
