"""Rollback is exact for every kind of memory: what was dropped leaves no trace in what follows.

Each test brings a target to some ids by way of rejected drafts and compares its next logits with
those of a fresh target that decoded the same ids and nothing else. Differences are 0.0 as a rule.
The tolerance is for row counts that run through other kernels: a lone row of float32, and the
recurrences' scans. Logits here have a standard deviation of 1 to 3, so one wrong row shows as a
difference of 1 and more, which `test_the_tolerance_can_tell` checks.
"""

from __future__ import annotations

import numpy as np
import pytest

from mtp_cli.engine.backend.target import N_BATCH, Target
from mtp_cli.engine.types import MAX_DEPTH, N_OUTPUTS, Floats, HiddenSource, Rows
from mtp_cli.errors import MtpError
from tests.engine import tiny
from tests.engine.conftest import Targets

TOLERANCE = 5e-3
KINDS = {
    "llama": "plain KV",
    "llama-q8_0": "plain KV, quantized weights",
    "llama-q4_0": "plain KV, quantized weights",
    "gemma2": "sliding window",
    "mimo2": "sliding window, heads",
    "mamba": "recurrent, replayed",
    "jamba": "hybrid, replayed",
    "qwen3next": "hybrid, replayed, heads",
    "qwen35": "hybrid, snapshots, heads",
    "lfm2": "hybrid, snapshots",
    "lfm2-window": "hybrid with a sliding window, snapshots",
}
REPLAYED = ("mamba", "jamba", "qwen3next")
KV_ONLY = ("llama", "llama-q8_0", "llama-q4_0", "gemma2", "mimo2")

every_kind = pytest.mark.parametrize("kind", KINDS)
PROMPT = tiny.random_ids(40, seed=1)
DRAFT = tiny.random_ids(MAX_DEPTH + 1, seed=2)  # the newest id and eight drafted ones
NEXT = tiny.random_ids(5, seed=3)


def read(target: Target, tokens: list[int], n_hidden: int = 0) -> Rows:
    """Decode a prompt to its end."""
    rows = target.prefill(tokens, n_hidden, lambda: False)
    assert rows is not None
    return rows


def after(target: Target, *pieces: list[int]) -> Floats:
    """The logits of the last piece, on a fresh target."""
    read(target, pieces[0])
    for piece in pieces[1:-1]:
        read(target, piece)
    return target.decode(pieces[-1]).logits.copy()


def assert_same(found: Floats, expected: Floats, tolerance: float = TOLERANCE) -> None:
    assert np.abs(found - expected).max() <= tolerance


@every_kind
@pytest.mark.parametrize("n_rejected", range(1, MAX_DEPTH + 1))
def test_a_rejected_draft_leaves_no_trace(new_target: Targets, kind: str, n_rejected: int) -> None:
    target = new_target(kind)
    read(target, PROMPT)
    target.decode(DRAFT)
    n_kept = len(PROMPT) + len(DRAFT) - n_rejected

    assert target.truncate(n_kept) == n_kept
    assert target.ids == [*PROMPT, *DRAFT[: len(DRAFT) - n_rejected]]
    logits = target.decode(NEXT).logits.copy()

    accepted = DRAFT[: len(DRAFT) - n_rejected]
    assert_same(logits, after(new_target(kind), PROMPT, accepted, NEXT))
    assert_same(logits, after(new_target(kind), [*PROMPT, *accepted], NEXT))


@every_kind
def test_the_tolerance_can_tell(new_target: Targets, kind: str) -> None:
    """One row too many in memory, and one too few, change the logits by far more than allowed."""
    right = after(new_target(kind), PROMPT, DRAFT[:4], NEXT)
    for wrong in (DRAFT[:5], DRAFT[:3]):
        assert np.abs(after(new_target(kind), PROMPT, wrong, NEXT) - right).max() > 1


@every_kind
def test_many_rounds_add_up(new_target: Targets, kind: str) -> None:
    """A hundred rounds of random drafts, of which random parts are rejected."""
    rng = np.random.default_rng(11)
    target, fresh = new_target(kind, n_ctx=512), new_target(kind, n_ctx=512)
    read(target, PROMPT)
    read(fresh, PROMPT)
    for _ in range(100):
        draft = [int(i) for i in rng.integers(0, tiny.EOS, rng.integers(1, MAX_DEPTH + 2))]
        n_rejected = int(rng.integers(0, len(draft)))
        target.decode(draft)
        fresh.decode(draft[: len(draft) - n_rejected])
        n_kept = len(target.ids) - n_rejected
        assert target.truncate(n_kept) == n_kept
        assert target.ids == fresh.ids

    assert_same(target.decode(NEXT).logits.copy(), fresh.decode(NEXT).logits)


@every_kind
def test_a_long_rollback_keeps_what_it_says(new_target: Targets, kind: str) -> None:
    """As /undo: either the prefix is still there, or the target says that nothing is."""
    target = new_target(kind)
    read(target, PROMPT)
    target.decode(DRAFT)
    target.truncate(len(PROMPT) + 3)
    target.decode(NEXT)

    n_past = target.truncate(17)
    assert n_past == (17 if kind in KV_ONLY else 0)
    assert target.ids == PROMPT[:n_past]
    if PROMPT[n_past:17]:
        read(target, PROMPT[n_past:17])
    logits = target.decode(NEXT).logits.copy()

    assert_same(logits, after(new_target(kind), PROMPT[:17], NEXT))


@every_kind
def test_two_rollbacks_in_a_row(new_target: Targets, kind: str) -> None:
    """Snapshots are used up by the first; the second must not come back with a stale one."""
    target = new_target(kind)
    read(target, PROMPT)
    target.decode(DRAFT)
    target.truncate(len(PROMPT) + 6)
    n_past = target.truncate(len(PROMPT) + 2)
    ids = [*PROMPT, *DRAFT][:n_past]
    assert target.ids == ids
    rest = [*PROMPT, *DRAFT[:2]][n_past:]
    if rest:
        read(target, rest)
    logits = target.decode(NEXT).logits.copy()

    assert_same(logits, after(new_target(kind), [*PROMPT, *DRAFT[:2]], NEXT))


@every_kind
@pytest.mark.parametrize("n_dropped", [1, 3, 8, 9, 30])
def test_dropping_the_end_of_a_prompt(new_target: Targets, kind: str, n_dropped: int) -> None:
    """The next prompt shares all but the last ids of this one's (another last user turn)."""
    target = new_target(kind)
    read(target, PROMPT)
    n_kept = len(PROMPT) - n_dropped
    n_past = target.truncate(n_kept)
    assert target.ids == PROMPT[:n_past]
    if PROMPT[n_past:n_kept]:
        read(target, PROMPT[n_past:n_kept])
    logits = target.decode(NEXT).logits.copy()

    assert_same(logits, after(new_target(kind), PROMPT[:n_kept], NEXT))


@every_kind
def test_dropping_below_a_single_decoded_row(new_target: Targets, kind: str) -> None:
    """A snapshot further back than the last decode's rows is stale."""
    target = new_target(kind)
    read(target, PROMPT)
    for token in DRAFT[:4]:
        target.decode([token])
    n_past = target.truncate(len(PROMPT) + 1)
    assert target.ids == [*PROMPT, *DRAFT][:n_past]
    rest = [*PROMPT, DRAFT[0]][n_past:]
    if rest:
        read(target, rest)
    logits = target.decode(NEXT).logits.copy()

    assert_same(logits, after(new_target(kind), [*PROMPT, DRAFT[0]], NEXT))


@every_kind
def test_dropping_everything(new_target: Targets, kind: str) -> None:
    target = new_target(kind)
    read(target, PROMPT)
    assert target.truncate(0) == 0
    assert target.ids == []
    read(target, NEXT)
    assert_same(target.decode(NEXT).logits.copy(), after(new_target(kind), NEXT, NEXT))


@every_kind
def test_a_prompt_of_several_batches(new_target: Targets, kind: str) -> None:
    """Longer than a batch, than a window's cache and, ubatch by ubatch, than the snapshots."""
    prompt = tiny.random_ids(1300, seed=5)
    target = new_target(kind, n_ctx=2048)
    read(target, prompt)
    target.decode(DRAFT)
    target.truncate(len(prompt) + 4)
    logits = target.decode(NEXT).logits.copy()

    fresh = new_target(kind, n_ctx=2048)
    read(fresh, prompt[:1000])
    assert_same(logits, after(fresh, prompt[1000:], DRAFT[:4], NEXT))


@pytest.mark.parametrize("kind", ["gemma2", "mimo2", "lfm2-window"])
def test_back_and_forth_across_the_window(new_target: Targets, kind: str) -> None:
    """Rollbacks of many times the window, in a text that outgrows any cache of its size."""
    rng = np.random.default_rng(12)
    target = new_target(kind, n_ctx=2048)
    pieces: list[list[int]] = []
    for _ in range(12):
        n_new = int(rng.integers(60, 240))
        pieces += [[int(i) for i in rng.integers(0, tiny.EOS, n_new)], DRAFT]
        read(target, pieces[-2])
        target.decode(DRAFT)
        n_dropped = int(rng.integers(len(DRAFT), 60))
        n_kept = len(target.ids) - n_dropped
        del pieces[-1]
        pieces[-1] = pieces[-1][: len(pieces[-1]) - (n_dropped - len(DRAFT))]
        ids = [token for piece in pieces for token in piece]
        n_past = target.truncate(n_kept)
        assert target.ids == ids[:n_past]
        if n_past == 0:  # snapshots do not reach that far
            for piece in pieces:
                read(target, piece)
    assert len(target.ids) > 1000
    logits = target.decode(NEXT).logits.copy()

    # A piece's last row is read by itself, and in the text here that was dropped it was not:
    # llama.cpp's attention rounds the two otherwise.
    expected = after(new_target(kind, n_ctx=2048), *pieces, NEXT)
    assert_same(logits, expected, tolerance=5 * TOLERANCE)


@every_kind
def test_a_full_context_is_refused_and_recovered_from(new_target: Targets, kind: str) -> None:
    target = new_target(kind, n_ctx=64)
    read(target, PROMPT)
    target.decode(DRAFT)
    with pytest.raises(MtpError, match="context of 64 tokens is full"):
        target.decode(tiny.random_ids(16, seed=4))
    ids = list(target.ids)
    n_past = target.truncate(len(PROMPT))
    assert target.ids == ids[:n_past]
    if n_past == 0:
        read(target, PROMPT)

    assert_same(target.decode(NEXT).logits.copy(), after(new_target(kind), PROMPT, NEXT))


@every_kind
def test_a_failed_decode_leaves_nothing_half_done(new_target: Targets, kind: str) -> None:
    """A token outside the vocabulary makes llama.cpp fail; the timeline says what is left."""
    target = new_target(kind)
    read(target, PROMPT)
    target.decode(DRAFT)
    with pytest.raises(MtpError, match="could not decode 2 rows"):
        target.decode([3, tiny.N_VOCAB])
    assert target.ids == []
    read(target, PROMPT)

    assert_same(target.decode(NEXT).logits.copy(), after(new_target(kind), PROMPT, NEXT))


@pytest.mark.parametrize("kind", REPLAYED)
def test_a_replay_is_only_needed_for_what_was_rejected(new_target: Targets, kind: str) -> None:
    """An accepted draft replaces the checkpoint of the one before it."""
    target = new_target(kind)
    read(target, PROMPT)
    target.decode(DRAFT[:4])  # all accepted
    target.decode(DRAFT[4:])
    n_kept = len(PROMPT) + 6
    assert target.truncate(n_kept) == n_kept
    ids = [*PROMPT, *DRAFT[:6]]
    assert target.ids == ids

    assert_same(target.decode(NEXT).logits.copy(), after(new_target(kind), ids, NEXT))


@pytest.mark.parametrize("kind", REPLAYED)
def test_a_replay_of_more_than_one_batch(new_target: Targets, kind: str) -> None:
    """An accepted draft's checkpoint is gone back to from the end of a long prompt."""
    target, long = new_target(kind, n_ctx=1024), tiny.random_ids(N_BATCH + 60, seed=4)
    read(target, PROMPT)
    target.decode(DRAFT[:3])
    read(target, long)
    ids = [*PROMPT, *DRAFT[:3], *long[:-1]]
    assert target.truncate(len(ids)) == len(ids)
    assert target.ids == ids

    assert_same(target.decode(NEXT).logits.copy(), after(new_target(kind, n_ctx=1024), ids, NEXT))


@pytest.mark.parametrize("kind", REPLAYED)
def test_an_old_checkpoint_is_not_mixed_with_newer_text(new_target: Targets, kind: str) -> None:
    """Rows were decoded one by one after the checkpoint: it can still be gone back to."""
    target = new_target(kind)
    read(target, PROMPT)
    target.decode(DRAFT[:3])
    for token in DRAFT[3:6]:
        target.decode([token])
    n_past = target.truncate(len(PROMPT) + 5)
    assert target.ids == [*PROMPT, *DRAFT[:5]][:n_past]
    ids = [*PROMPT, *DRAFT[:5]]
    if n_past == 0:
        read(target, ids)

    assert_same(target.decode(NEXT).logits.copy(), after(new_target(kind), ids, NEXT))


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        *[(kind, HiddenSource.EMBD) for kind in KINDS if not kind.startswith("lfm2")],
        *[(kind, HiddenSource.NEXTN) for kind in ("mimo2", "qwen35", "qwen3next")],
    ],
)
@pytest.mark.parametrize("n_hidden", [1, 20, N_OUTPUTS])
def test_hidden_rows_change_nothing(
    new_target: Targets, kind: str, source: HiddenSource, n_hidden: int
) -> None:
    """Whatever rows a drafter wants to see, the model's choices stay what they are without.

    Rows of a prompt are batched alike: 64 rows and more go through another attention kernel,
    whose rounding moved SmolLM2's logits by 1.
    """
    prompt = tiny.random_ids(600, seed=6)
    plain = new_target(kind, n_ctx=1024)
    expected = [read(plain, prompt).logits[-1].copy(), plain.decode(DRAFT).logits.copy()]
    target = new_target(kind, n_ctx=1024, hidden=source)
    rows = read(target, prompt, n_hidden)
    assert rows.hidden is not None
    n_given = n_hidden if source is HiddenSource.NEXTN else 1
    assert rows.hidden.shape == (n_given, tiny.N_EMBD)
    assert_same(rows.logits[-1], expected[0])
    rows = target.decode(DRAFT)
    assert rows.hidden is not None
    assert rows.hidden.shape == (len(DRAFT), tiny.N_EMBD)
    assert_same(rows.logits, expected[1])
