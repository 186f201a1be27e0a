"""Runs every prompt through every setting of both tools, side by side.

Owns the order of the runs and their records. Knows nothing of how a tool is started or of ratios.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peer.server import DEPTHS, Answer, Server
from mtp_cli.engine import Depth, Engine, Sampling

OURS, BESIDE, PEER = "ours", "ours, head beside", "llama-server"
Answering = Callable[[Sequence[int], int], Answer]


@dataclass(frozen=True)
class Contender:
    """One setting of one tool. answer: of a prompt's ids and the most tokens of an answer."""

    tool: str
    setting: str
    answer: Answering

    @property
    def key(self) -> tuple[str, str]:
        return self.tool, self.setting


@dataclass(frozen=True)
class Record:
    """One answer. tokens: decoded ones, without that of the prompt's pass

    verified, accepted: how many ids were, in all
    is_fork:           not the answer that the same tool gives without drafting
    """

    cls: str
    repetition: int
    tool: str
    setting: str
    tokens: int
    tokens_per_s: float
    verified: int
    accepted: int
    is_fork: bool

    def to_json(self) -> dict[str, Any]:
        return {"class" if name == "cls" else name: value for name, value in vars(self).items()}


def ours(engine: Engine, tool: str = OURS, depths: Sequence[int] = DEPTHS) -> list[Contender]:
    """Our settings: the fixed depths that llama-server is run at, automatic, and plain decoding,
    which a head beside the target does not change.

    depths: none where nothing but copying drafts
    """

    def at(depth: Depth) -> Answering:
        def answer(prompt: Sequence[int], max_tokens: int) -> Answer:
            generation = engine.generate(
                prompt, Sampling(temperature=0), max_tokens=max_tokens, depth=depth
            )
            for _ in generation:
                pass
            stats = generation.stats
            verified, accepted = sum(stats.verified), sum(stats.accepted)
            return Answer(generation.tokens, stats.tokens_per_s, verified, accepted)

        return answer

    plain = [Contender(tool, "plain", at(0))] if tool == OURS else []
    fixed = [Contender(tool, f"depth {n}", at(n)) for n in depths]
    return [*plain, *fixed, Contender(tool, "auto", at("auto"))]


def peers(servers: Iterable[Server]) -> list[Contender]:
    return [Contender(PEER, s.setting.name, s.client.answer) for s in servers]


def compare(
    contenders: Sequence[Contender],
    prompts: Iterable[tuple[int, str, Sequence[int]]],
    max_tokens: int,
    on_answer: Callable[[str], None],
) -> list[Record]:
    """prompts: (repetition, class, ids). A prompt that somebody answers with one token is left out.

    on_answer: told the class before each answer
    """
    records: list[Record] = []
    order = random.Random(0)
    for repetition, cls, ids in prompts:
        answers: dict[tuple[str, str], Answer] = {}
        for contender in order.sample(contenders, len(contenders)):
            on_answer(cls)
            answers[contender.key] = contender.answer(ids, max_tokens)
        if all(len(a.tokens) > 1 and a.tokens_per_s > 0 for a in answers.values()):
            records += [_record(repetition, cls, c.key, answers) for c in contenders]
    return records


def _record(
    repetition: int, cls: str, key: tuple[str, str], answers: dict[tuple[str, str], Answer]
) -> Record:
    answer, (tool, setting) = answers[key], key
    plain = answers[PEER if tool == PEER else OURS, "plain"]
    return Record(
        cls,
        repetition,
        tool,
        setting,
        tokens=len(answer.tokens) - 1,
        tokens_per_s=answer.tokens_per_s,
        verified=answer.verified,
        accepted=answer.accepted,
        is_fork=answer.tokens != plain.tokens,
    )
