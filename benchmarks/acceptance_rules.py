"""How many tokens a round different rules of drafting and accepting give at a temperature.

Answers are sampled plainly; then the head reads along and says at every place what it would have
drafted, step after step of the text itself. From the target's distribution p and the head's q at
each step, the chance that a rule accepts the text's next tokens is exact arithmetic: a rule whose
draft and outcome have the masses m(y) of being y and accepted accepts a text that says y with
m(y) / p(y). Rounds begin where that rule's rounds begin, so nothing is rolled but the text.
Nothing is timed.

    python benchmarks/acceptance_rules.py                       # 12 minutes on a busy core
    python benchmarks/acceptance_rules.py --seeds 1 --prompts 4 # a first look
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mtp_cli import models
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.bench.trace import Recorder
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.drafters.base import Draft
from mtp_cli.engine.generate import Generation
from mtp_cli.engine.sampling.candidates import Candidates, point_mass
from mtp_cli.engine.sampling.proposals import Proposal
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.types import Floats, Ids

DEPTHS = (1, 2, 3, 4)
Masses = Callable[[Sequence[Candidates], Sequence[Candidates], Sequence[int]], list[float]]


@dataclass
class Recorded:
    """An answer; targets: p of each token; heads: q of what follows each token, step by step."""

    tokens: list[int]
    targets: list[Candidates] = field(default_factory=list)
    heads: list[list[Candidates]] = field(default_factory=list)


class ReadAlong(Sampler):
    """Chooses and drafts what the answer says, and notes the distributions."""

    def __init__(self, sampling: Sampling, answer: Recorded) -> None:
        super().__init__(sampling, draws_drafts=True)
        self._answer = answer

    def choose(self, logits: Floats, before: Sequence[int] = ()) -> int:
        answer = self._answer
        answer.targets.append(self.candidates(logits, before))
        answer.heads.append([])
        return answer.tokens[len(answer.targets) - 1]

    def propose(
        self,
        logits: Floats,
        ids: Ids | None,
        before: Sequence[int],
        commit: Callable[[float], bool],
        prob: float | None = None,
    ) -> Proposal:
        answer, q = self._answer, self.candidates(logits)
        steps = answer.heads[-1]
        steps.append(q if ids is None else q.renamed(ids))
        following = answer.tokens[len(answer.targets) - 1 + len(steps) :][:1]
        names = np.arange(len(logits)) if ids is None else ids
        index = int(np.searchsorted(names, following[0])) if following else len(names)
        if index < len(names) and names[index] == following[0]:
            return Proposal(index, 1.0)
        return Proposal(0, 0.0)  # the head cannot say it: no draft goes on here


class Alongside(Recorder):
    """Drafts everywhere as long as the head says the text, and verifies nothing."""

    def begin(self, *args: object) -> int:
        return max(DEPTHS)

    def keep_going(self, draft: Draft) -> bool:
        return draft.probs[-1] > 0

    def commit(self, prob: float) -> bool:
        return True


def record(engine: Engine, text: str, sampling: Sampling, max_tokens: int) -> Recorded:
    prompt = prompt_ids(engine, text)
    plain = engine.generate(prompt, sampling, max_tokens=max_tokens, depth=0)
    for _ in plain:
        pass
    answer = Recorded(plain.tokens)
    reading = Generation(
        engine._timeline.target,
        engine._timeline.drafter,
        ReadAlong(sampling, answer),
        Alongside(),
        prompt,
        max_tokens=len(plain.tokens),
        is_end=engine.is_eog,
    )
    for _ in reading:
        pass
    return answer


def ratios(p: Sequence[Candidates], q: Sequence[Candidates], text: Sequence[int]) -> list[float]:
    steps = zip(p, q, text, strict=True)
    return [head.prob_of(token) / target.prob_of(token) for target, head, token in steps]


def rejection(p: Sequence[Candidates], q: Sequence[Candidates], text: Sequence[int]) -> list[float]:
    """Leviathan et al. (2023); for a point mass this is token match."""
    return list(np.cumprod(np.minimum(1.0, ratios(p, q, text))))


def block(p: Sequence[Candidates], q: Sequence[Candidates], text: Sequence[int]) -> list[float]:
    """Sun et al. (2024): the least of the products so far."""
    products = np.cumprod(ratios(p, q, text))
    return list(np.minimum.accumulate(np.minimum(1.0, products)))


def shared_noise(
    p: Sequence[Candidates], q: Sequence[Candidates], text: Sequence[int]
) -> list[float]:
    """Both sides choose by argmax(log probability + the same Gumbel noise)."""
    kept = []
    for target, head, token in zip(p, q, text, strict=True):
        p_token, q_token = target.prob_of(token), head.prob_of(token)
        if q_token == 0:
            kept.append(0.0)
            continue
        names = np.union1d(target.ids, head.ids)
        larger = np.zeros(len(names))
        larger[names.searchsorted(target.ids)] = target.probs / p_token
        there = names.searchsorted(head.ids)
        larger[there] = np.maximum(larger[there], head.probs / q_token)
        kept.append(1 / larger.sum() / p_token)
    return list(np.cumprod(kept))


def best_guess(q: Candidates) -> Candidates:
    return point_mass(int(q.ids[q.probs.argmax()]))


def power(exponent: float) -> Callable[[Candidates], Candidates]:
    return lambda q: q.reweighted(q.probs**exponent)


RULES: dict[str, tuple[Callable[[Candidates], Candidates], Masses]] = {
    "best guess, token match": (best_guess, rejection),
    "draw from q, rejection": (power(1), rejection),
    "draw from q^1.5, rejection": (power(1.5), rejection),
    "draw from q^2, rejection": (power(2), rejection),
    "draw from q, block": (power(1), block),
    "draw from q^1.5, block": (power(1.5), block),
    "draw from q^2, block": (power(2), block),
    "shared noise, q": (power(1), shared_noise),
    "shared noise, q^1.5": (power(1.5), shared_noise),
    "shared noise, q^2": (power(2), shared_noise),
}


def accepted(answer: Recorded, rule: str) -> list[list[float]]:
    """At each token, the chances that 1, 2, ... of the drafted tokens after it are accepted."""
    draft, masses = RULES[rule]
    chances = []
    for place, heads in enumerate(answer.heads):
        text = answer.tokens[place + 1 : place + 1 + len(heads)]
        q = [draft(head) for head in heads[: len(text)]]
        chances.append(masses(answer.targets[place + 1 :][: len(q)], q, text))
    return chances


def expected_rounds(chances: Sequence[Sequence[float]], depth: int) -> float:
    """How many rounds the answer takes; the first token is the prompt's."""
    n = len(chances)
    begins = np.zeros(n + depth + 1)
    begins[0] = 1.0
    for place in range(n - 1):
        at_least = np.array([1.0, *chances[place][:depth], 0.0])
        spread = at_least[:-1] - at_least[1:]
        begins[place + 1 : place + 1 + len(spread)] += begins[place] * spread
    return float(begins[: n - 1].sum())


def show(answers: Sequence[Recorded], temperature: float, console: Console) -> None:
    n_tokens = sum(len(answer.tokens) - 1 for answer in answers)
    title = f"tokens a round, T = {temperature}, {n_tokens} tokens"
    table = Table(title=title, title_justify="left")
    for heading in ("rule", *(f"depth {depth}" for depth in DEPTHS)):
        table.add_column(heading)
    first: list[float] = []
    for rule in RULES:
        chances = [accepted(answer, rule) for answer in answers]
        rates = [n_tokens / sum(expected_rounds(c, depth) for c in chances) for depth in DEPTHS]
        first = first or rates
        table.add_row(
            rule, *(f"{a:.3f} {100 * (a / b - 1):+.1f}%" for a, b in zip(rates, first, strict=True))
        )
    console.print(table)


def main(
    seeds: Annotated[int, typer.Option(help="Answers to each prompt.")] = 3,
    prompts: Annotated[int, typer.Option(help="Prompts, over all classes in turn.")] = 22,
    max_tokens: int = 96,
    threads: int = 1,
) -> None:
    files = models.find()
    texts = [group[i] for i in range(2) for group in PROMPTS.values()][:prompts]
    console = Console()
    with Engine.open(files.model, files.heads, n_ctx=2048, n_threads=threads) as engine:
        for temperature in (0.7, 1.0):
            samplings = [Sampling(temperature=temperature, seed=seed) for seed in range(seeds)]
            todo = [(text, sampling) for sampling in samplings for text in texts]
            answers = [
                record(engine, text, sampling, max_tokens)
                for text, sampling in track(todo, console=Console(stderr=True))
            ]
            show(answers, temperature, console)


if __name__ == "__main__":
    typer.run(main)
