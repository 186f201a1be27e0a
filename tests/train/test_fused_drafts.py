"""A head that fuses rows of several layers: the engine drafts from its file what torch computes."""

# mypy: disallow-untyped-decorators=False
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.target import Target as EngineTarget
from mtp_cli.engine.drafters.base import Drafter
from mtp_cli.engine.drafters.opening import open_drafter
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.pairing import pair
from mtp_cli.engine.sampling.proposals import Proposal, likeliest
from mtp_cli.engine.types import Floats, Ids
from mtp_cli.models import built_in_model
from mtp_train.corpus import make_vocabulary
from mtp_train.export import write_head
from mtp_train.target import Target

pytest.importorskip("torch")

import torch

from mtp_train.head import Head
from mtp_train.recipe import EXACT
from mtp_train.shape import HeadShape

LAYERS, N_DRAFT, N, DEPTH = (2, 15, 27), 64, 20, 3
SHAPE = HeadShape(
    576, 9, 3, 64, 128, N_DRAFT, 1e-5, 100000.0, fused_layers=LAYERS, prompt_rows=2 * N
)
N_FUSED = len(LAYERS) * 576
N_PROMPT = 8  # rows without final ones
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(built_in_model())


@pytest.fixture(scope="module", params=[False, True], ids=["layers", "final"])
def head(request: pytest.FixtureRequest, target: Target) -> Head:
    """In answers it reads layers, or the final row, too."""
    torch.manual_seed(3)
    tables = torch.tensor(target.token_embd[:N_DRAFT]), torch.tensor(target.output[:N_DRAFT])
    shape = replace(SHAPE, with_final=request.param)
    head = Head(shape, *tables, torch.tensor(1 / target.output_norm))
    with torch.no_grad():
        for parameter in head.norms():
            parameter.uniform_(0.5, 1.5)
    return head


@pytest.fixture
def drafter(head: Head, target: Target, tmp_path: Path) -> Iterator[Drafter]:
    vocabulary = make_vocabulary(np.arange(N_DRAFT, dtype=np.int32), target.token_embd)
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    path = tmp_path / "head.gguf"
    write_head(path, target, vocabulary, head.shape, weights, EXACT)
    pairing = pair(read_shards(built_in_model()), path)
    assert pairing is not None
    model = Model(built_in_model(), n_gpu_layers=0)
    engine_target = EngineTarget(
        model, n_ctx=256, n_threads=1, hidden=pairing.hidden, layers=pairing.layers
    )
    opened = open_drafter(engine_target, pairing, n_threads=1, n_gpu_layers=0)
    yield opened
    opened.close()
    engine_target.close()
    model.close()


@torch.no_grad()
def test_every_draft_step_equals_torch(head: Head, drafter: Drafter) -> None:
    """After a prompt, and after a round more; both from the same rows, raw and as trained on."""
    tokens = np.random.default_rng(4).integers(0, N_DRAFT, N).tolist()
    rows = np.random.default_rng(5).normal(0, 4, (N, N_FUSED)).astype(np.float32)
    if head.shape.with_final:
        final = np.random.default_rng(6).normal(0, 4, (N, 576)).astype(np.float32)
        final[:N_PROMPT] = 0
        rows = np.concatenate((rows, final), 1)
    end = N - 3
    drafter.observe(tokens[:end], 0, rows[:end])
    for newest in (end, end + 2):
        seen: list[Floats] = []

        def propose(
            logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
        ) -> Proposal:
            seen.append(logits.copy())  # noqa: B023 (called within the iteration)
            return likeliest(logits, ids, drafted)

        draft = drafter.draft(tokens[newest], DEPTH, propose=propose)
        text = torch.tensor([[*tokens[1 : newest + 1], *draft.ids[:-1]]])
        outs = head.unroll(text, trained_on(rows[:newest], DEPTH - 1), DEPTH)
        for step, found in enumerate(seen):
            expected = head.logits(outs[step])[0, newest - 1 + step].numpy()
            assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()
        drafter.observe(tokens[newest : newest + 2], newest, rows[newest : newest + 2])


def trained_on(rows: Floats, n_more: int) -> torch.Tensor:
    """(1, n, ...): each layer's row divided by its root mean square, final rows as they are; zeros
    after the last of them."""
    each = rows[:, :N_FUSED].reshape(len(rows), len(LAYERS), -1)
    unit = each / np.sqrt(np.mean(each**2, axis=-1, keepdims=True) + SHAPE.rms_eps)
    found = np.concatenate((unit.reshape(len(rows), -1), rows[:, N_FUSED:]), 1)
    padded = np.pad(found, ((0, n_more), (0, 0)))
    return torch.tensor(padded[np.newaxis])
