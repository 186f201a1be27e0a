"""Answers of models whose layers lie on RPC servers, for `test_rpc.py`.

A process of its own: where a server ends, llama.cpp ends its client.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from mtp_cli.engine import Engine, Sampling, Ways
from mtp_cli.engine.backend.placement import Placement
from tests.engine import tiny

PROMPT = tiny.random_ids(24, seed=31)
N_TOKENS = 40


@dataclass(frozen=True)
class Case:
    """A model, what drafts for it, and where its tensors go.

    n_layers:  that go to the servers, None for all
    overrides: (pattern, buffer type); {0} and {1} are the servers' own
    split:     shares of the servers
    """

    model: str
    heads: str | None = None
    draft_model: str | None = None
    n_layers: int | None = None
    overrides: tuple[tuple[str, str], ...] = ()
    split: tuple[float, ...] = ()


@dataclass(frozen=True)
class Answers:
    """plain, drafted: the ids; n_verified: drafted ids that were looked at"""

    plain: list[int]
    drafted: list[int]
    n_verified: int


def answers(case: Case, servers: tuple[str, ...]) -> Answers:
    buffers = [f"RPC0[{server}]" for server in servers]
    overrides = tuple((pattern, name.format(*buffers)) for pattern, name in case.overrides)
    with Engine.open(
        Path(case.model),
        Path(case.heads) if case.heads else None,
        draft_model=Path(case.draft_model) if case.draft_model else None,
        n_ctx=256,
        n_threads=1,
        n_gpu_layers=case.n_layers,
        ways=Ways(Placement(overrides, split=case.split, servers=servers)),
    ) as engine:
        greedy = Sampling(temperature=0.0)
        plain = engine.generate(PROMPT, greedy, max_tokens=N_TOKENS, depth=0)
        for _ in plain:
            pass
        drafted = engine.generate(PROMPT, greedy, max_tokens=N_TOKENS, depth=3)
        for _ in drafted:
            pass
        n_verified = sum(drafted.stats.verified)
        return Answers([*plain.tokens], [*drafted.tokens], n_verified)


def main() -> None:
    """Cases on stdin, by name; the servers as arguments; answers on stdout."""
    cases = {name: Case(**fields) for name, fields in json.load(sys.stdin).items()}
    servers = tuple(sys.argv[1:])
    found = {name: asdict(answers(case, servers)) for name, case in cases.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
