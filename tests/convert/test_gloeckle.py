"""Meta's multi-token prediction models: what the heads compute, and that drafting changes nothing.

The files' refusals are in test_independent_files.py, the reader of .pth files in test_pth.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.drafters.independent import N_KEPT, IndependentDrafter
from mtp_cli.engine.drafters.opening import independent_contexts
from mtp_cli.engine.files import independent_heads
from mtp_cli.engine.files.gguf_header import read_header
from mtp_cli.engine.sampling.proposals import Proposal, Propose, likeliest
from mtp_cli.engine.types import HiddenSource, Ids
from mtp_convert.commands.build import Part
from tests.convert.checkpoints_meta import N_FUTURE, N_LAYERS, gloeckle, write_meta_checkpoint
from tests.convert.conftest import MakeFiles, convert
from tests.convert.forward import Floats, rope_halves
from tests.convert.forward_meta import head_logits, target_rows
from tests.convert.test_families import PROMPT
from tests.convert.test_heads_forward import close
from tests.engine.drafters.lasting import check_lasting

LAST_LAYER = f"layers.{N_LAYERS - N_FUTURE}"
HEADS = [f"extra_heads.{k}" for k in range(N_FUTURE - 1)]
GREEDY = Sampling(temperature=0.0)


def target(path: Path, hidden: HiddenSource) -> tuple[Floats, Floats | None]:
    """The target's logits, and the rows its heads read, of every token of PROMPT."""
    model = Model(path, n_gpu_layers=0)
    context = Context(model, n_ctx=64, n_batch=32, n_outputs=32, n_threads=1, hidden=hidden)
    context.decode(PROMPT, 0)
    rows = context.hidden()
    found = context.logits().copy(), None if rows is None else rows.copy()
    context.close()
    model.close()
    return found


@pytest.fixture
def drafter(gloeckle_files: MakeFiles) -> Iterator[IndependentDrafter]:
    path = gloeckle_files("f32")[1]
    offsets = [head.offset for head in independent_heads.embedded(read_header(path))]
    opened = IndependentDrafter(independent_contexts(path, offsets, 256, 1, 0))
    yield opened
    opened.close()


def test_the_target_and_its_rows(gloeckle_files: MakeFiles) -> None:
    tiny = gloeckle()
    logits, rows = target(gloeckle_files("f32")[0], HiddenSource.LAYER)
    wanted = target_rows(tiny, PROMPT)
    assert rows is not None
    close(rows, wanted)
    close(logits, head_logits(tiny, LAST_LAYER, wanted))


def test_rotary_pairs_are_neighbours(gloeckle_files: MakeFiles) -> None:
    """A control: with Hugging Face's halves the logits are far away."""
    tiny = gloeckle()

    def halves(x: Floats, frequencies: Floats) -> Floats:
        return rope_halves(x, tiny.config["rope_theta"], x.shape[-1])

    logits, _ = target(gloeckle_files("f32")[0], HiddenSource.LAYER)
    wrong = head_logits(tiny, LAST_LAYER, target_rows(tiny, PROMPT, halves), halves)
    with pytest.raises(AssertionError):
        close(logits, wrong)


def test_handing_out_rows_changes_no_bit_of_the_logits(gloeckle_files: MakeFiles) -> None:
    for outtype in ("f32", "bf16", "q8_0"):
        path, _ = gloeckle_files(outtype)
        with_rows, _ = target(path, HiddenSource.LAYER)
        np.testing.assert_array_equal(with_rows, target(path, HiddenSource.NONE)[0])


@pytest.mark.parametrize("n_at_once", [1, 5, len(PROMPT)])
def test_every_head_predicts_what_the_paper_says(
    n_at_once: int, drafter: IndependentDrafter
) -> None:
    """The logits of the newest row, however the rows before it came in."""
    tiny = gloeckle()
    rows = target_rows(tiny, PROMPT)
    seen: list[Floats] = []
    for start in range(0, len(PROMPT), n_at_once):
        some = PROMPT[start : start + n_at_once]
        drafter.observe(some, start, rows[start:][:n_at_once])
        seen = []
        draft = drafter.draft(0, N_FUTURE, propose=recording(seen))
    wanted = np.stack([head_logits(tiny, name, rows)[-1] for name in HEADS])
    close(np.stack(seen), wanted)
    assert draft.ids == wanted.argmax(axis=1).tolist()
    assert len(set(draft.ids)) > 1


def recording(seen: list[Floats]) -> Propose:
    def propose(
        logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        seen.append(logits.copy())
        return likeliest(logits, ids)

    return propose


def test_a_head_that_rested_catches_up(drafter: IndependentDrafter) -> None:
    tiny = gloeckle()
    rows = target_rows(tiny, PROMPT)
    wanted = [int(head_logits(tiny, name, rows)[-1].argmax()) for name in HEADS]
    for position in range(len(PROMPT)):
        drafter.observe(PROMPT[position:][:1], position, rows[position:][:1])
        if position < len(PROMPT) - 1:
            draft = drafter.draft(0, 1)
            assert (len(draft.ids), draft.n_behind) == (1, 0)
    assert drafter.n_waiting == 0  # the first head lacks the newest row alone
    draft = drafter.draft(0, 8)
    assert draft.ids == wanted
    assert draft.n_behind == (len(HEADS) - 1) * (len(PROMPT) - 1)
    assert drafter.draft(0, 8).ids == []  # nothing new to draft from


def test_a_head_that_rested_too_long_starts_anew(drafter: IndependentDrafter) -> None:
    """As after a long prompt: what it predicts rests on the rows that are still kept."""
    tiny = gloeckle()
    tokens = [*PROMPT * 6]
    rows = target_rows(tiny, tokens)
    drafter.observe(tokens[:4], 0, rows[:4])
    assert len(drafter.draft(0, 8).ids) == len(HEADS)
    drafter.observe(tokens[4:], 4, rows[4:])
    assert drafter.n_waiting == N_KEPT - 1  # besides the newest
    wanted = [int(head_logits(tiny, name, rows[-N_KEPT:])[-1].argmax()) for name in HEADS]
    assert drafter.draft(0, 8).ids == wanted


def test_after_a_truncation_the_heads_read_what_came_instead(drafter: IndependentDrafter) -> None:
    tiny = gloeckle()
    other = [*PROMPT[:10], *reversed(PROMPT[10:])]
    rows, other_rows = target_rows(tiny, PROMPT), target_rows(tiny, other)
    drafter.observe(PROMPT, 0, rows)
    drafter.draft(0, 8)
    drafter.truncate(10)
    drafter.observe(other[10:], 10, other_rows[10:])
    wanted = [int(head_logits(tiny, name, other_rows)[-1].argmax()) for name in HEADS]
    assert drafter.draft(0, 8).ids == wanted


def test_drafting_stops_when_told(drafter: IndependentDrafter) -> None:
    drafter.observe(PROMPT, 0, target_rows(gloeckle(), PROMPT))
    assert len(drafter.draft(0, 8, lambda draft: len(draft.ids) < 2).ids) == 2


@pytest.mark.parametrize("outtype", ["f32", "q8_0", "q4_0"])
def test_drafted_greedy_output_is_plain_output(outtype: str, gloeckle_files: MakeFiles) -> None:
    target, heads = gloeckle_files(outtype)
    with Engine.open(target, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        plain = engine.generate(PROMPT, GREEDY, max_tokens=40, depth=0)
        list(plain)
    with Engine.open(target, heads, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        assert engine.drafter == f"{heads.name}, 3 independent heads"
        for depth in range(1, 9):
            run = engine.generate(PROMPT, GREEDY, max_tokens=40, depth=depth)
            list(run)
            assert run.tokens == plain.tokens
            assert len(run.stats.verified) == min(depth, 3)
            assert run.stats.verified[0] >= 20


def test_what_heads_draft_is_accepted_where_it_is_right(tmp_path: Path) -> None:
    """A model that repeats a token for ever, and heads that are copies of its last layer."""
    tiny = gloeckle()
    for name in HEADS:
        for tensor in [t for t in tiny.tensors if t.startswith(LAST_LAYER + ".")]:
            tiny.tensors[name + tensor.removeprefix(LAST_LAYER)] = tiny.tensors[tensor]
    tiny.tensors["output.weight"][:] *= 0.01
    tiny.tensors["output.weight"][100] = tiny.tensors["norm.weight"]
    tiny.tensors["tok_embeddings.weight"][:] = 3 * np.abs(tiny.tensors["tok_embeddings.weight"])
    folder = write_meta_checkpoint(tmp_path / "x", tiny)
    target = convert(folder, tmp_path / "target.gguf", "target")
    heads = convert(folder, tmp_path / "heads.gguf", "heads")
    with Engine.open(target, heads, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        run = engine.generate(PROMPT, GREEDY, max_tokens=41, depth=8)
        list(run)
    assert run.tokens == [100] * 41
    assert run.stats.accepted == run.stats.verified == [10] * 3


def test_safetensors_saved_from_it_convert_alike(gloeckle_files: MakeFiles, tmp_path: Path) -> None:
    folder = write_meta_checkpoint(tmp_path / "again", gloeckle(), safetensors=True)
    parts: list[Part] = ["target", "heads"]
    for part, published in zip(parts, gloeckle_files("bf16"), strict=True):
        found = convert(folder, tmp_path / f"{part}.gguf", part, "bf16")
        ours, theirs = (GGUFReader(path).tensors for path in (found, published))
        assert [t.name for t in ours] == [t.name for t in theirs]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.data, other.data)


def test_a_model_trained_without_extra_heads(tmp_path: Path) -> None:
    """The published baselines: the same layout, one future token."""
    tiny = gloeckle(n_extra=0)
    tiny.config |= {"n_layers": N_LAYERS - N_FUTURE + 1, "n_future_tokens": 1}
    folder = write_meta_checkpoint(tmp_path / "7B_200B_1", tiny)
    path = convert(folder, tmp_path / "x.gguf", "all")
    logits, _ = target(path, HiddenSource.NONE)
    close(logits, head_logits(tiny, LAST_LAYER, target_rows(tiny, PROMPT)))


def test_heads_are_taken_up_as_they_were_put_away(drafter: IndependentDrafter) -> None:
    rows = target_rows(gloeckle(), PROMPT)
    n = len(PROMPT)
    drafter.observe(PROMPT[: n - 4], 0, rows[: n - 4])
    drafter.draft(0, 1)  # the others are behind

    def go_on() -> list[Draft]:
        drafts = []
        for position in (n - 4, n - 3):
            drafter.observe(PROMPT[position:][:1], position, rows[position:][:1])
            drafts.append(drafter.draft(0, 8))
        return drafts

    check_lasting(drafter, go_on)
