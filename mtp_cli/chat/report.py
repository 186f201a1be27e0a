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


def parts(stats: Stats, n_ctx: int) -> list[str]:
    """The statistics line of one answer, in its parts; the context shows once it is half full."""
    said = [
        f"{stats.tokens_per_s:.0f} tok/s",
        f"first token {_seconds(stats.time_to_first_token_s)}",
        f"prompt {stats.prompt_tokens}, {stats.cached_tokens} cached",
        f"answer {stats.completion_tokens}",
    ]
    if any(stats.verified):
        said.append(f"{stats.tokens_per_round:.2f} tokens/round")
        said.append(f"accepted {' '.join(_rates(stats.verified, stats.accepted))}")
    if stats.exact:
        said.append("exact")
    n_used = stats.prompt_tokens + stats.completion_tokens
    if 2 * n_used >= n_ctx:
        said.append(f"context {100 * n_used // n_ctx}% full")
    return said


def as_json(answer: Answer, files: ModelFiles, heads: str | None) -> str:
    """One JSON object, in ASCII so that it is safe on a terminal, with the text exactly as said."""
    stats = answer.stats
    fields = {
        "text": answer.text,
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
        "model": str(files.model),
        "heads": heads,
    }
    return json.dumps(fields, allow_nan=False)


def show_table(history: Sequence[Stats], out: TextIO) -> None:
    """The last answer beside the whole conversation so far, and every draft position."""
    from rich.console import Console
    from rich.table import Table

    last = history[-1]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "last answer", f"all {len(history)}"):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, values in _rows(last, history):
        table.add_row(label, *values)
    Console(file=out, highlight=False).print(table)


def _rows(last: Stats, history: Sequence[Stats]) -> list[tuple[str, tuple[str, str]]]:
    def both(form: str, value: Callable[[Sequence[Stats]], float]) -> tuple[str, str]:
        return form.format(value([last])), form.format(value(history))

    rows = [
        ("prompt tokens", both("{:.0f}", lambda many: sum(s.prompt_tokens for s in many))),
        ("  of them cached", both("{:.0f}", lambda many: sum(s.cached_tokens for s in many))),
        ("prompt, s", both("{:.2f}", lambda many: sum(s.prefill_s for s in many))),
        ("answer tokens", both("{:.0f}", lambda many: sum(s.completion_tokens for s in many))),
        ("answer, s", both("{:.2f}", lambda many: sum(s.decode_s for s in many))),
        ("tokens/s", both("{:.1f}", _mean_speed)),
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


def _mean_per_round(many: Sequence[Stats]) -> float:
    rounds = sum(s.rounds for s in many)
    return sum(s.tokens_per_round * s.rounds for s in many) / rounds if rounds else 0.0


def _sums(lists: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip_longest(*lists, fillvalue=0)]


def _rates(verified: Sequence[int], accepted: Sequence[int]) -> list[str]:
    return [f"{100 * n_ok / n:.0f}%" for n, n_ok in zip(verified, accepted, strict=True) if n]


def _counts(verified: Sequence[int], accepted: Sequence[int]) -> list[str]:
    return [
        f"{n_ok}/{n} {100 * n_ok / n:3.0f}%"
        for n, n_ok in zip(verified, accepted, strict=True)
        if n
    ]


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
