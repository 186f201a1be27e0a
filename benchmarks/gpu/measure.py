"""The pieces that stages are made of: loading, rows' costs, forks, exact answers, speed.

Each takes an engine and gives what JSON can hold. Knows nothing of stages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.gpu.loaded import is_all_on_card, placed
from benchmarks.lossless import DEPTHS, answer, compare
from mtp_cli.bench import report
from mtp_cli.bench.measure import Bench, Plan, shortened, warm_up
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.binding import heard
from mtp_cli.models import ModelFiles

N_CTX = 4096
N_ROWS = 16
_REPETITIONS = 5  # that more time is used for
_N_LINES = 400  # of llama.cpp's, kept beside what was read out of them


@contextlib.contextmanager
def opened(
    files: ModelFiles, n_gpu_layers_draft: int | None = None
) -> Iterator[tuple[Engine, dict[str, Any]]]:
    """An engine with all layers on the card, and how that went."""
    started = time.monotonic()
    with heard() as lines:
        engine = Engine.open(
            files.model, files.heads, n_ctx=N_CTX, n_gpu_layers_draft=n_gpu_layers_draft
        )
    found = placed(lines)
    with engine:
        yield (
            engine,
            {
                "seconds": time.monotonic() - started,
                "is_all_on_card": is_all_on_card(found),
                "drafter": engine.drafter,
                **found,
                "lines": lines[-_N_LINES:],
            },
        )


def costs(engine: Engine) -> dict[str, Any]:
    """Milliseconds of decodes and drafts, as the depth policy measures and uses them.

    rows_ms: of 1 to 16 rows together, with a short context
    growth_us: what each token of context adds to one row
    """
    table = engine.costs().table
    return {
        "rows_ms": [1e3 * seconds for seconds in table.target_s[:N_ROWS]],
        "switch_ms": 1e3 * table.switch_s,
        "growth_us": 1e6 * table.growth_s[0],
        "first_draft_ms": 1e3 * table.first_s,
        "waiting_row_ms": 1e3 * table.row_s,
        "further_draft_ms": 1e3 * table.step_s,
    }


def forks(engine: Engine, texts: Sequence[str], seconds: float, max_tokens: int) -> dict[str, Any]:
    """How many greedy answers are not plain decoding's, at each fixed depth and automatic.

    answers: compared, each of max_tokens, at every depth; as many as the time allows, one at least
    """
    ends, n_answers = time.monotonic() + seconds, 0
    differing: Counter[str] = Counter({str(depth): 0 for depth in DEPTHS})
    for text in texts:
        if n_answers and time.monotonic() > ends:
            break
        found = compare(engine, text, max_tokens)["differing"]
        if found is not None:  # else the plain answer ended sooner
            n_answers += 1
            differing.update(map(str, found))
    return {"max_tokens": max_tokens, "answers": n_answers, "forks": dict(differing)}


def exact(engine: Engine, texts: Sequence[str], seconds: float, max_tokens: int) -> dict[str, Any]:
    """The same with `--exact`, of which there must be none.

    mistaken: decodes whose rows were believed to have the bits of single ones, and had not
    row_counts: that were seen to change no bit
    """
    ends, counts = time.monotonic() + seconds, Counter[str]()
    for text in texts:
        if counts["answers"] and time.monotonic() > ends:
            break
        prompt = prompt_ids(engine, text)
        plain = answer(engine, prompt, 0, max_tokens)
        drafted = engine.generate(prompt, Sampling(0), max_tokens=max_tokens, exact=True)
        for _ in drafted:
            pass
        counts["answers"] += 1
        counts["forks"] += drafted.tokens != plain
        counts["mistaken"] += len(drafted.stats.inexact)
    names = ("answers", "forks", "mistaken")
    found = {name: counts[name] for name in names}
    return {"max_tokens": max_tokens, **found, "row_counts": list(engine.exact_row_counts)}


def speed(engine: Engine, seconds: float, plan: Plan) -> dict[str, Any]:
    """mtp-bench's measurement in about so many seconds: more repetitions, or shorter answers."""
    plain_per_s = warm_up(engine)
    n_times = seconds * plain_per_s / (2 * len(plan) * plan.max_tokens)
    plan = dataclasses.replace(plan, repetitions=max(1, min(_REPETITIONS, int(n_times))))
    plan = shortened(plan, plain_per_s, seconds)
    result = Bench(engine, plan).run(lambda _cls: None)
    return report.as_json(plan, result, engine.costs())
