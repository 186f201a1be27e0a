"""What an answer cost, for people and for scripts: one line, one table, one JSON object.

Knows the engine's statistics and nothing of how they came about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, TextIO

from mtp_cli.conversation.answer import Answer
from mtp_cli.models import ModelFiles

if TYPE_CHECKING:
    from mtp_cli.engine import Stats


def line(stats: Stats) -> str:
    """What people see under an answer; everything else is in the table and in the JSON object."""
    said = f"{_speed(stats.tokens_per_s)} tok/s"
    times = stats.times_plain
    return said if times is None else f"{said}, {times:.1f} times plain"


def _speed(tokens_per_s: float) -> str:
    return f"{tokens_per_s:.0f}" if tokens_per_s >= 10 else f"{tokens_per_s:.1f}"


def as_json(answer: Answer, files: ModelFiles, *, drafts: bool) -> str:
    """One JSON object, in ASCII so that it is safe on a terminal, with the text exactly as said."""
    stats = answer.stats
    fields = {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "tokens": answer.tokens,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "completion_tokens": stats.completion_tokens,
        "prefill_s": stats.prefill_s,
        "decode_s": stats.decode_s,
        "tokens_per_s": stats.tokens_per_s,
        "rounds": stats.rounds,
        "verified": list(stats.verified),
        "accepted": list(stats.accepted),
        "exact": stats.exact,
        "inexact_row_counts": stats.inexact,
        "times_plain": stats.times_plain,
        "model": str(files.model),
        "heads": _heads(files) if drafts else None,
        "draft_model": None if files.draft_model is None else str(files.draft_model),
    }
    return json.dumps(fields, allow_nan=False)


def _heads(files: ModelFiles) -> str | None:
    """Where the heads that draft lie: their own file, or the model's."""
    return None if files.draft_model is not None else str(files.heads or files.model)


def show_table(history: Sequence[Stats], n_ctx: int, out: TextIO) -> None:
    """The last answer beside the whole conversation so far, and every draft position."""
    from rich.console import Console
    from rich.table import Table

    last = history[-1]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "last answer", f"all {len(history)}"):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, values in _rows(last, history):
        table.add_row(label, *values)
    console = Console(file=out, highlight=False)
    console.print(table)
    n_used = last.prompt_tokens + last.completion_tokens
    console.print(f"context {100 * n_used // n_ctx}% full: {n_used:,} of {n_ctx:,} tokens")
    if last.exact:
        console.print("exact: only row counts that change no bit were verified")


def _rows(last: Stats, history: Sequence[Stats]) -> list[tuple[str, tuple[str, str]]]:
    def both(form: str, value: Callable[[Sequence[Stats]], float]) -> tuple[str, str]:
        return form.format(value([last])), form.format(value(history))

    rows = [
        ("prompt tokens", both("{:.0f}", lambda many: sum(s.prompt_tokens for s in many))),
        ("  of them cached", both("{:.0f}", lambda many: sum(s.cached_tokens for s in many))),
        ("prompt, s", both("{:.2f}", lambda many: sum(s.prefill_s for s in many))),
        ("answer tokens", both("{:.0f}", lambda many: sum(s.completion_tokens for s in many))),
        ("answer, s", both("{:.2f}", lambda many: sum(s.decode_s for s in many))),
        ("first token, ms", both("{:.0f}", _mean_first_ms)),
        ("tokens/s", both("{:.1f}", _mean_speed)),
        ("times plain", (_times([last]), _times(history))),
        ("rounds", both("{:.0f}", lambda many: sum(s.rounds for s in many))),
        ("tokens/round", both("{:.2f}", _mean_per_round)),
    ]
    newest = _counts(last.verified, last.accepted)
    all_ = _counts(_sums([s.verified for s in history]), _sums([s.accepted for s in history]))
    positions = enumerate(zip_longest(newest, all_, fillvalue=""), 1)
    return rows + [(f"accepted at {position}", both_) for position, both_ in positions]


def _mean_speed(many: Sequence[Stats]) -> float:
    decode_s = sum(s.decode_s for s in many)
    return sum(s.tokens_per_s * s.decode_s for s in many) / decode_s if decode_s else 0.0


def _mean_first_ms(many: Sequence[Stats]) -> float:
    return 1000 * sum(s.time_to_first_token_s for s in many) / len(many)


def _times(many: Sequence[Stats]) -> str:
    """Over the answers of which both times are known."""
    compared_s = sum(s.compared_s for s in many)
    return f"{sum(s.plain_s for s in many) / compared_s:.2f}" if compared_s else "unknown"


def _mean_per_round(many: Sequence[Stats]) -> float:
    rounds = sum(s.rounds for s in many)
    return sum(s.tokens_per_round * s.rounds for s in many) / rounds if rounds else 0.0


def _sums(lists: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip_longest(*lists, fillvalue=0)]


def _counts(verified: Sequence[int], accepted: Sequence[int]) -> list[str]:
    return [
        f"{n_ok}/{n} {100 * n_ok / n:3.0f}%"
        for n, n_ok in zip(verified, accepted, strict=True)
        if n
    ]
