"""mtp_cli/bench/measure.py through the real engine: what is in memory when an answer begins."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from mtp_cli.bench.measure import Bench, Plan
from mtp_cli.engine import Depth, Engine
from mtp_cli.engine.depth.policy import FixedDepth
from mtp_cli.engine.drafters.ngram import Match
from tests.engine import tiny


class Watching(FixedDepth):
    """Notes how many rows its drafter has yet to read when an answer begins."""

    def __init__(self) -> None:
        super().__init__(2)
        self.waiting: list[int] = []

    def begin(self, room: int, n_past: int, n_waiting: int, match: Match) -> int:
        self.waiting.append(n_waiting)
        return super().begin(room, n_past, n_waiting, match)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_draft_model_reads_each_answers_prompt_anew(tmp_path: Path, forgets: bool) -> None:
    """With what it has read before, an answer would seem to take less than it does."""
    model, watching = tiny.llama().write(tmp_path / "m.gguf"), Watching()
    depths = cast("tuple[Depth, ...]", (0, watching))
    plan = Plan(("chat",), (0.0,), depths, repetitions=1, max_tokens=6)
    with Engine.open(model, draft_model=model, n_ctx=512, n_threads=1, n_gpu_layers=0) as engine:
        Bench(engine, plan, forgets=forgets).run(lambda _cls: None)
    assert (watching.waiting[0] > 10) is forgets
    assert max(watching.waiting[1:]) < 4
