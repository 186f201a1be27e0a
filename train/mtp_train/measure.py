"""Acceptance in the real loop: the engine, at a fixed depth, on prompts training never saw.

Owns which prompts are answered, and what a head file keeps of the answers. `fit.py` keeps these
prompts, and mtp-bench's, out of the corpus by their rendered ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mtp_cli.acceptance import Acceptance, Record, total
from mtp_cli.bench import held_out
from mtp_cli.bench import prompts as bench
from mtp_cli.bench.accepted import answered
from mtp_cli.bench.weights import Weights
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Depth, Engine, Sampling, Stats
from mtp_train import second_set
from mtp_train.corpus import prompt_key

N_CTX = 2048
_WAYS: tuple[Depth, ...] = (0, "auto")  # of which the speeds are compared
_TIMES = 2  # that each of these answers is given


def held_out_keys(engine: Engine) -> list[bytes]:
    """What the corpus must not contain."""
    sets = (held_out.PROMPTS, second_set.PROMPTS, bench.PROMPTS)
    groups = (group for prompts in sets for group in prompts.values())
    texts = (text for group in groups for text in group)
    return [prompt_key(np.array(prompt_ids(engine, text), np.int32)) for text in texts]


def measure(
    model: Path,
    heads: Path | None,
    *,
    depth: int,
    max_tokens: int,
    system: str | None = None,
    n_threads: int | None = None,
    prompts: Mapping[str, Iterable[str]] = held_out.PROMPTS,
    on_answer: Callable[[str, Acceptance], None] = lambda _group, _found: None,
) -> dict[str, list[Acceptance]]:
    """Greedy answers at a fixed depth, by group of prompts.

    system: what goes in front of every prompt, as in `Session`
    """
    found: dict[str, list[Acceptance]] = {}
    with Engine.open(model, heads, n_ctx=N_CTX, n_threads=n_threads) as engine:
        for group, texts in prompts.items():
            found[group] = []
            for text in texts:
                one = answered(engine, text, system=system, depth=depth, max_tokens=max_tokens)
                found[group].append(one)
                on_answer(group, one)
    return found


def by_group(answers: Mapping[str, Sequence[Acceptance]]) -> dict[str, Acceptance]:
    """Those of "all" together, then those of each group of prompts."""
    every = [one for group in answers.values() for one in group]
    depth = len(every[0].accepted)
    groups = {name: total(group, depth) for name, group in answers.items()}
    return {"all": total(every, depth), **groups}


def record_of(
    model: Path, answers: Mapping[str, Sequence[Acceptance]], *, system: str | None, max_tokens: int
) -> Record:
    """What a head file keeps of answers to all of `held_out.PROMPTS`."""
    every = tuple(one for group in answers.values() for one in group)
    return Record(held_out.NAME, system, Weights.of(model).format, max_tokens, every)


def n_answered(prompts: Mapping[str, Sequence[str]], max_tokens: int) -> int:
    """Tokens of the answers that `measure` and `speeds` give to these prompts, at most."""
    n_compared = len(prompts) * len(_WAYS) * _TIMES
    return max_tokens * (sum(map(len, prompts.values())) + n_compared)


def speeds(
    model: Path,
    heads: Path | None,
    *,
    max_tokens: int,
    system: str | None = None,
    n_threads: int | None = None,
    prompts: Mapping[str, Sequence[str]] = held_out.PROMPTS,
) -> dict[str, tuple[float, float]]:
    """Tokens a second, plain and with automatic depth: of the first prompt of every group, and
    "all" together. Each answer is given twice and the second counts: the first one learns costs."""
    found: dict[str, tuple[float, float]] = {}
    n_tokens, seconds = [0, 0], [0.0, 0.0]
    with Engine.open(model, heads, n_ctx=N_CTX, n_threads=n_threads) as engine:
        for group, texts in prompts.items():
            prompt = prompt_ids(engine, texts[0], system=system)
            rates = []
            for way, depth in enumerate(_WAYS):
                stats = _last_time(engine, prompt, depth, max_tokens)
                n_tokens[way] += stats.completion_tokens - 1
                seconds[way] += stats.decode_s + stats.checking_s
                rates.append(stats.tokens_per_s)
            found[group] = rates[0], rates[1]
    plain, drafting = (n / max(s, 1e-9) for n, s in zip(n_tokens, seconds, strict=True))
    return {"all": (plain, drafting), **found}


def _last_time(engine: Engine, prompt: list[int], depth: Depth, max_tokens: int) -> Stats:
    for _ in range(_TIMES):
        generation = engine.generate(
            prompt, Sampling(temperature=0), max_tokens=max_tokens, depth=depth
        )
        for _ in generation:
            pass
    return generation.stats
