"""The torch head against llama.cpp's own graph, and its batched unroll against one by one."""

# mypy: disallow-untyped-decorators=False
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.types import HiddenSource
from mtp_cli.models import built_in_model
from mtp_train.corpus import make_vocabulary
from mtp_train.export import write_head
from mtp_train.target import Target

pytest.importorskip("torch")

import torch

from mtp_train.head import Head
from mtp_train.recipe import EXACT
from mtp_train.shape import HeadShape

N_DRAFT, N = 64, 12


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(built_in_model())


@pytest.fixture(scope="module")
def head(target: Target) -> Head:
    torch.manual_seed(0)
    shape = HeadShape(576, 9, 3, 64, 128, N_DRAFT, 1e-5, 100000.0)
    tables = torch.tensor(target.token_embd[:N_DRAFT]), torch.tensor(target.output[:N_DRAFT])
    head = Head(shape, *tables)
    with torch.no_grad():
        for parameter in head.norms():
            parameter.uniform_(0.5, 1.5)
    return head


def inputs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, N_DRAFT, (1, n), generator=generator)
    return tokens, torch.randn(1, n, 576, generator=generator)


@torch.no_grad()
def test_every_draft_step_equals_llama_cpp(head: Head, target: Target, tmp_path: Path) -> None:
    vocabulary = make_vocabulary(np.arange(N_DRAFT, dtype=np.int32), target.token_embd)
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    path = tmp_path / "head.gguf"
    write_head(path, target, vocabulary, head.shape, weights, EXACT)
    model = Model(path)
    context = Context(
        model, n_ctx=64, n_batch=32, n_outputs=32, n_threads=1, hidden=HiddenSource.NEXTN, mtp=True
    )
    tokens, rows = inputs(N)
    outs = head.unroll(tokens, rows, 4)
    # A chain that starts at position N - 4: true rows up to there, then the head's own.
    start = N - 4
    context.decode(tokens[0, : start + 1].tolist(), 5, hidden=rows[0, : start + 1].numpy())
    first = context.logits()
    assert np.abs(first - head.logits(outs[0])[0, : start + 1].numpy()).max() < 0.02
    for step in range(1, 4):
        hidden = context.hidden()
        assert hidden is not None
        at = start + step
        context.decode([int(tokens[0, at])], 5 + at, hidden=hidden[-1:].copy())
        expected = head.logits(outs[step])[0, at].numpy()
        assert np.abs(context.logits()[0] - expected).max() < 0.02
    assert np.abs(first).max() > 1  # so that the tolerance means something
    context.close()
    model.close()


@torch.no_grad()
@pytest.mark.parametrize("start", [0, 3, 7])
def test_unrolled_attention_equals_one_chain_at_a_time(head: Head, start: int) -> None:
    tokens, rows = inputs(N)
    n_steps = 4
    outs = head.unroll(tokens, rows, n_steps)
    # The naive way: true rows up to the start, then each of the chain's rows appended, all of it
    # read again by ordinary causal attention.
    chain = rows[:, : start + 1]
    for step in range(n_steps):
        embedded = torch.nn.functional.embedding(tokens[:, : start + step + 1], head.token_embd)
        out, _ = head.step(embedded, chain, [])
        torch.testing.assert_close(out[0, -1], outs[step][0, start + step], atol=1e-4, rtol=1e-4)
        chain = torch.cat((chain, out[:, -1:]), 1)


@torch.no_grad()
def test_later_positions_do_not_reach_back(head: Head) -> None:
    tokens, rows = inputs(N)
    before = head.unroll(tokens, rows, 3)
    tokens[0, 8:], rows[0, 8:] = 0, 1.0
    for old, new in zip(before, head.unroll(tokens, rows, 3), strict=True):
        torch.testing.assert_close(old[:, :8], new[:, :8])
        assert not torch.allclose(old[:, 8:], new[:, 8:])
