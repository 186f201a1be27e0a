"""What a pair of target and heads accepts: greedy answers at a fixed depth, one after another.

Owns running them. The engine is open already; knows nothing of files.
"""

from __future__ import annotations

from mtp_cli.acceptance import Acceptance
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine, Sampling


def answered(
    engine: Engine, text: str, *, system: str | None, depth: int, max_tokens: int
) -> Acceptance:
    """The counts of one answer. system: what goes in front of the text, as in `Session`"""
    generation = engine.generate(
        prompt_ids(engine, text, system=system),
        Sampling(temperature=0),
        max_tokens=max_tokens,
        depth=depth,
    )
    for _ in generation:
        pass
    stats = generation.stats
    padding = (0,) * (depth - len(stats.accepted))
    drafted = stats.verified[0] if stats.verified else 0
    n_tokens = max(0, stats.completion_tokens - 1)
    return Acceptance(n_tokens, stats.rounds, drafted, (*stats.accepted, *padding))
