"""benchmarks/python_overhead.py: it measures the ways of choosing that the engine uses."""

from __future__ import annotations

from benchmarks.document.page import page
from benchmarks.python_overhead import LIMITS_MS, as_json, columns


def test_sampled_rounds_are_measured_with_drawn_drafts_and_with_best_guesses() -> None:
    found = columns([0.0, 0.7])
    assert [column.n_vocab for column in found] == [n for n in LIMITS_MS for _ in range(3)]
    greedy, drawn, guessed = found[:3]
    samplers = [column.sampler(1.0) for column in (greedy, drawn, guessed)]
    assert [sampler.is_greedy for sampler in samplers] == [True, False, False]
    assert [sampler.draws_drafts for sampler in samplers[1:]] == [True, False]
    assert "T 0.7, drawn" in drawn.title
    assert "T 0.7, guessed" in guessed.title
    assert "greedy" in greedy.title


def test_rounds_are_written_up_beside_their_limit() -> None:
    wanted = columns([0.0])
    found = as_json(wanted, {"plain": [0.125, 0.25]})
    assert found["machine"]["cores"] == 1
    shown = page({"python-overhead": found})
    assert "49,152 ids, greedy (limit 0.3) | 250,000 ids, greedy (limit 1) |" in shown
    assert "| plain | 0.125 | 0.250 |" in shown
