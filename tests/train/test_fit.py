"""The run: interrupted or not it gives the same weights; replayed rounds are counted right."""

# mypy: disallow-untyped-decorators=False
from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.errors import MtpError
from mtp_train.corpus import Role, Sample, choose_vocabulary

pytest.importorskip("torch")

import torch

from mtp_train.agreement import agreement, replay
from mtp_train.fit import Run, Settings, read_checkpoint
from mtp_train.head import Chains, Head
from mtp_train.losses import Adopted, blocked_cross_entropy, target_distribution
from mtp_train.shape import HeadShape
from mtp_train.tables import Tables
from tests.train.test_corpus import conversation

N_VOCAB, N_EMBD = 50, 16
TARGET = "a target's fingerprint"


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    texts = [conversation(rng) for _ in range(30)]
    rows = rng.standard_normal((30, 40, N_EMBD)).astype(np.float16)
    return [Sample(t.ids, t.roles, rows[i, : len(t)]) for i, t in enumerate(texts)]


def new_run(folder: Path, steps: int, **shape: Any) -> Run:
    torch.manual_seed(0)
    embeddings = np.random.default_rng(1).standard_normal((N_VOCAB, N_EMBD)).astype(np.float32)
    vocabulary = choose_vocabulary(samples(), 32, embeddings)
    table = torch.tensor(embeddings[vocabulary.draft_ids])
    head = Head(HeadShape(N_EMBD, 2, 1, 8, 32, 32, 1e-5, 10000.0, **shape), table, table)
    settings = Settings(steps, 120, warmup=2, checkpoint_every=100, evaluate_every=100)
    return Run(folder, TARGET, settings, head, samples(), vocabulary, table, torch.ones(N_EMBD))


def train(run: Run, stop_at: int | None = None) -> None:
    class Stopped(Exception):
        pass

    def on_step(at: object, _loss: float) -> None:
        if run.progress.step == stop_at:
            run.save()
            raise Stopped

    with contextlib.suppress(Stopped):
        run.train(run.samples[:4], on_step, lambda _at, _found: None)


def test_a_resumed_run_gives_the_same_weights(tmp_path: Path) -> None:
    whole = new_run(tmp_path / "whole", 9)
    train(whole)
    train(new_run(tmp_path / "parts", 9), stop_at=4)
    resumed = new_run(tmp_path / "parts", 9)
    saved = read_checkpoint(tmp_path / "parts", TARGET)
    assert saved is not None
    assert saved.progress.step == 4
    resumed.resume(saved)
    train(resumed)
    assert resumed.progress.step == 9
    started = new_run(tmp_path, 9).head.state_dict()
    for name, value in whole.head.state_dict().items():
        torch.testing.assert_close(resumed.head.state_dict()[name], value, rtol=0, atol=0)
        assert not torch.equal(value, started[name])


def test_a_checkpoint_of_another_target_is_refused(tmp_path: Path) -> None:
    new_run(tmp_path, 9).save()
    with pytest.raises(MtpError, match="another model"):
        read_checkpoint(tmp_path, "another")


def test_training_learns_what_the_target_would_say(tmp_path: Path) -> None:
    """With a target whose row names the token after next, agreement goes from chance to high."""
    run = new_run(tmp_path, 150)
    rng = np.random.default_rng(2)
    table = run.target_output.float().numpy()
    run.samples = [_predictable(run, table, rng) for _ in range(40)]
    before = agreement(run.head, run.samples, run.vocabulary).forced[0]
    train(run)
    after = agreement(run.head, run.samples, run.vocabulary).forced[0]
    assert before < 0.3
    assert after > 0.6


def test_a_head_that_fuses_learns_from_the_layers_rows_alone(tmp_path: Path) -> None:
    """Where a layer's row names the token after next, and nothing else does."""
    run = new_run(tmp_path, 150, fused_layers=(1, 2), prompt_rows=4)
    rng = np.random.default_rng(2)
    table = run.target_output.float().numpy()
    texts = [_predictable(run, table, rng) for _ in range(40)]
    noise = rng.standard_normal((40, 40, N_EMBD)).astype(np.float16)
    run.samples = [
        Sample(s.ids, s.roles, s.rows, (noise[i, : len(s)], s.rows)) for i, s in enumerate(texts)
    ]
    train(run)
    assert agreement(run.head, run.samples, run.vocabulary).forced[0] > 0.6
    assert run.head.fuse.shape == (N_EMBD, 2 * N_EMBD)


def test_a_head_that_reads_final_rows_too_learns_from_them(tmp_path: Path) -> None:
    """Where final rows name what comes next, and layers' rows are noise."""
    run = new_run(tmp_path, 150, fused_layers=(1,), prompt_rows=4, with_final=True)
    rng = np.random.default_rng(2)
    table = run.target_output.float().numpy()
    texts = [_predictable(run, table, rng) for _ in range(40)]
    noise = rng.standard_normal((40, 40, N_EMBD)).astype(np.float16)
    run.samples = [
        Sample(s.ids, s.roles, s.rows, (noise[i, : len(s)],), with_final=True)
        for i, s in enumerate(texts)
    ]
    train(run)
    assert agreement(run.head, run.samples, run.vocabulary).forced[0] > 0.6


def _predictable(run: Run, table: np.ndarray, rng: np.random.Generator) -> Sample:
    sample = conversation(rng, 16)
    ids = run.vocabulary.draft_ids[rng.integers(0, 8) + np.arange(len(sample.ids)) % 4]
    nexts = run.vocabulary.surrogates[np.roll(ids, -1)]
    return Sample(ids, sample.roles, (2 * table[nexts]).astype(np.float16))


def test_the_curriculum_adds_draft_steps_and_the_rate_ends_at_zero() -> None:
    settings = Settings(100, warmup=10, decay=0.5, curriculum=(0.4, 0.7))
    assert [settings.n_unrolled(step) for step in (0, 39, 40, 69, 70, 99)] == [1, 1, 2, 2, 3, 3]
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(30) == 1.0
    assert 0 < settings.rate(99) < 0.03
    assert settings.rate(75) == pytest.approx(0.5)


def test_a_cooldown_unrolls_all_and_its_rate_only_falls() -> None:
    settings = Settings.cooldown(100)
    assert settings.n_unrolled(0) == 3
    rates = [settings.lr * settings.rate(step) for step in range(settings.warmup, 100)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 0.3 * Settings(100).lr
    assert rates[-1] < rates[0] / 50


def test_a_replayed_answer_counts_rounds_as_the_loop_does() -> None:
    # Step 1 is right after indices 0, 1, 4; step 2 after 1; so: 2 accepted, then index 3 wrong,
    # index 4 right with its step 2 wrong, and the end.
    right = np.array([[1, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0]], bool)
    drafted = np.zeros(2, np.int64)
    assert replay(right, drafted) == [2, 0, 1]
    assert drafted.tolist() == [3, 2]


def test_blocked_cross_entropy_equals_autograds() -> None:
    torch.manual_seed(0)
    rows = torch.randn(700, 8, requires_grad=True)
    output = torch.randn(33, 8, requires_grad=True)
    targets = target_distribution(torch.randn(700, 8), torch.randn(33, 8), 0.8, torch.float32)
    weights = torch.rand(700)
    found = blocked_cross_entropy(rows, output, targets, weights)
    found_grads = torch.autograd.grad(3 * found, (rows, output))
    logits = rows @ output.T
    expected = -(weights[:, None] * targets * logits.log_softmax(-1)).sum()
    expected_grads = torch.autograd.grad(3 * expected, (rows, output))
    torch.testing.assert_close(found, expected)
    for one, other in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_columns_that_a_text_holds_count_where_it_holds_them() -> None:
    """Against PyTorch's own softmax over the columns that are there, row by row."""
    torch.manual_seed(3)
    rows, output = torch.randn(600, 8), torch.randn(33, 8)
    adopted = Adopted(torch.randn(5, 8), torch.rand(600, 5) < 0.5)
    weights = torch.rand(600)
    ours, own_output = rows.clone().requires_grad_(), output.clone().requires_grad_()
    true = torch.randn(600, 8)
    targets = target_distribution(true, output, 1.0, torch.float32, adopted)
    found = blocked_cross_entropy(ours, own_output, targets, weights, adopted)
    found.backward()
    theirs, their_output = rows.clone().requires_grad_(), output.clone().requires_grad_()
    wanted = torch.zeros(())
    for i in range(600):
        known = adopted.known[i]
        matrix = torch.cat((their_output, adopted.output[known]))
        target = (torch.cat((output, adopted.output[known])) @ true[i]).softmax(-1)
        held = torch.cat((torch.ones(33, dtype=torch.bool), known))
        torch.testing.assert_close(targets[i, held], target)
        assert targets[i, ~held].eq(0).all()
        wanted = wanted - weights[i] * (target * (matrix @ theirs[i]).log_softmax(-1)).sum()
    wanted.backward()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(own_output.grad, their_output.grad, rtol=1e-3, atol=1e-4)


def test_a_run_learns_ids_that_only_its_texts_hold(tmp_path: Path) -> None:
    """Texts go round in circles, of ids of which a third is outside the draft vocabulary."""
    run = new_run(tmp_path, 150)
    table = np.random.default_rng(1).standard_normal((N_VOCAB, N_EMBD)).astype(np.float32)
    rng, texts = np.random.default_rng(5), []
    for _ in range(40):
        cycle = rng.permutation(N_VOCAB)[:6]
        ids = np.tile(cycle, 7)[:40].astype(np.int32)
        roles = np.array([Role.GIVEN] * 8 + [Role.GREEDY] * 32, np.uint8)
        rows = 3 * table[np.append(ids[1:], ids[0])]  # the target knows what comes next
        texts.append(Sample(ids, roles, rows.astype(np.float16)))
    run.samples = texts
    run.target_output = torch.tensor(table[run.vocabulary.draft_ids])
    run.tables = Tables(table, table)
    train(run)
    without = agreement(run.head, texts[:9], run.vocabulary).forced[0]
    found = agreement(run.head, texts[:9], run.vocabulary, tables=run.tables).forced[0]
    assert found > 2 * without


def test_rows_that_are_not_asked_for_change_no_others() -> None:
    torch.manual_seed(4)
    table = torch.randn(32, N_EMBD)
    head = Head(HeadShape(N_EMBD, 2, 1, 8, 32, 32, 1e-5, 10000.0), table, table)
    tokens, rows = torch.randint(0, 32, (3, 12)), torch.randn(3, 12, N_EMBD)
    wanted = torch.rand(3, 12) < 0.7
    whole, part = (Chains(head, tokens, head.read(rows)) for _ in range(2))
    use = wanted
    for _ in range(3):
        all_rows, some = whole.step(), part.step(use)
        torch.testing.assert_close(some[use], all_rows[use])
        assert some[~use].eq(0).all()
        use = wanted & (torch.nn.functional.pad(use, (1, -1)))
