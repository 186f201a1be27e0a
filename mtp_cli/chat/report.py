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
from mtp_cli.screen import dim, fold, say, width

if TYPE_CHECKING:
    from mtp_cli.engine import Stats

_Row = tuple[str, tuple[str, str]]  # a label, of the last answer, of all
_N_SIDE_BY_SIDE = 46  # columns: the widest row has a label and twice "12,345/12,345 100%"


def line(stats: Stats, *, with_prompt: bool) -> str:
    """What people see under an answer; everything else is in the table and in the JSON object.

    with_prompt: also how long the prompt was, for where no table can be asked for
    """
    n = stats.prompt_tokens
    parts = [f"prompt {n} {'token' if n == 1 else 'tokens'}"] if with_prompt else []
    parts.append(f"{_speed(stats.tokens_per_s)} tok/s")
    if stats.times_plain is not None:
        parts.append(f"{stats.times_plain:.1f} times plain")
    return ", ".join(parts)


_FIRST_PACE_S = 0.3  # of an answer: its first rounds say little


def pace(stats: Stats) -> str:
    """How fast an answer comes so far; "" until that is known."""
    if stats.decode_s < _FIRST_PACE_S:
        return ""
    parts = [f"{_speed(stats.tokens_per_s)} tok/s"]
    if any(stats.verified):
        parts.append(f"{sum(stats.accepted) / sum(stats.verified):.0%} of the drafts accepted")
    return ", ".join(parts)


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
    last = history[-1]
    rows = _rows(last, history)
    headings = ("last answer", f"all {len(history)}")
    if width(out) < _N_SIDE_BY_SIDE:
        _show_one_below_the_other(headings, rows, out)
    else:
        _show_side_by_side(headings, rows, out)
    n_used = last.prompt_tokens + last.completion_tokens
    say(fold(f"context {100 * n_used // n_ctx}% full: {n_used:,} of {n_ctx:,} tokens", out), out)
    if last.exact:
        say(fold("exact: only row counts that change no bit were verified", out), out)


def _show_side_by_side(headings: Sequence[str], rows: Sequence[_Row], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left")
    for label, values in rows:
        table.add_row(label, *values)
    Console(file=out, highlight=False).print(table)


def _show_one_below_the_other(headings: Sequence[str], rows: Sequence[_Row], out: TextIO) -> None:
    for i, heading in enumerate(headings):
        say(dim(fold(heading, out), out), out)
        for label, values in rows:
            if values[i]:
                say(fold(f"{label.strip()}: {values[i]}", out), out)


def _rows(last: Stats, history: Sequence[Stats]) -> list[_Row]:
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
