"""The steps of one head that is reused: each adds a row after the rows before it.

Owns how rows are put into the head's decodes. Knows nothing of where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtp_cli.engine.types import Floats, HeadContext


class ReusedSteps:
    """Steps in this context, which is empty now."""

    def __init__(self, context: HeadContext) -> None:
        self._context = context
        self._gives_last_row = _gives_last_row(context)

    def run(
        self,
        tokens: Sequence[int],
        hidden: Floats,
        start: int,
        *,
        take: Callable[[], int],
        is_wanted: Callable[[], bool],
    ) -> None:
        """True rows from position `start` on, then as many of the head's own as are wanted.

        hidden: (n_tokens, n_embd) float32
        take:   called after each step with its logits in the context; the id it chooses
        """
        position = start + len(tokens)
        if len(tokens) > 1 and not self._gives_last_row:
            self._context.read(tokens[:-1], start, hidden[:-1])
            tokens, hidden, start = tokens[-1:], hidden[-1:], position - 1
        self._context.decode(tokens, start, first_output=len(tokens) - 1, hidden=hidden)
        token = take()
        while is_wanted():
            self._context.decode([token], position, hidden=self._context.hidden())
            token = take()
            position += 1


def _gives_last_row(context: HeadContext) -> bool:
    """Whether the hidden row of a decode with one output is that output's.

    Some of llama.cpp's MTP graphs (qwen35, glm4moe, deepseek2, ...) hand out the decode's first
    rows, whichever were asked for; there, the newest row has to be a decode of its own.
    """
    rows = np.random.default_rng(0).standard_normal((2, context.n_embd)).astype(np.float32)
    start = 1  # a head's first position: it reads a token with the row of the position before

    def decoded(n_rows: int, position: int) -> Floats:
        context.decode(
            [0] * n_rows, start + position, first_output=n_rows - 1, hidden=rows[position:][:n_rows]
        )
        row = context.hidden()
        assert row is not None
        return np.array(row[0])

    given = decoded(2, 0)
    context.clear()
    first, last = decoded(1, 0), decoded(1, 1)
    context.clear()
    return bool(np.linalg.norm(given - last) < np.linalg.norm(given - first))
