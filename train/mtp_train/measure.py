"""Acceptance in the real loop: the engine, at a fixed depth, on prompts training never saw.

Owns the held-out prompts and the counting. `fit.py` keeps these prompts out of the corpus
by their rendered ids, and mtp-bench's with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtp_cli.bench import prompts as bench
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Depth, Engine, Sampling, Stats
from mtp_train import second_set
from mtp_train.corpus import prompt_key

PROMPTS: Mapping[str, tuple[str, ...]] = {
    "Python code": (
        "Write a Python function that returns the second largest number in a list.",
        "Write a Python script that renames all .txt files in a folder to .md.",
        "Write a Python class for a shopping cart with add, remove and total methods.",
        "How do I read a JSON file in Python and print every key?",
        "Write a Python decorator that measures how long a function takes.",
    ),
    "C++ code": (
        "Write a C++ program that prints a right-angled triangle of stars.",
        "Write a C++ function that swaps two integers by reference.",
        "Write a C++ class that represents a complex number with addition.",
        "Show a C++ example that uses std::map to count characters in a string.",
        "Write a C++ program that reads names until an empty line and sorts them.",
    ),
    "explanation": (
        "Why do we dream?",
        "Explain how a refrigerator keeps food cold.",
        "What is the difference between a process and a thread?",
        "Explain overfitting to someone who knows school mathematics.",
        "How does a sewing machine make a stitch?",
    ),
    "summary": (
        "Summarize in two sentences: The town council voted on Tuesday to turn the old railway "
        "line into a path for cyclists and walkers. Work begins in March and takes a year. "
        "Shop owners hope for more visitors, while some residents worry about parking.",
        "What is the main point of this text? Coral reefs cover less than one percent of the ocean "
        "floor, yet a quarter of all marine species depend on them. Warmer water makes the corals "
        "expel the algae that feed them, and many reefs have turned white.",
        "Give a one-line summary: Maria opened the bakery at five every morning for thirty years. "
        "When she retired, the whole street came to thank her, and her daughter took over.",
        "List the key facts of this notice: The swimming pool is closed from 3 to 14 May for "
        "repairs. Season tickets are extended by two weeks. The sauna stays open.",
        "Shorten this to one sentence: Although the experiment was planned for six weeks, the "
        "team had to stop after four because the sensors failed, and the data is enough "
        "only for a first impression.",
    ),
    "factual question": (
        "What is the capital of Canada?",
        "Who wrote Pride and Prejudice?",
        "How many legs does a spider have?",
        "What gas do plants take in from the air?",
        "In which year did the Titanic sink?",
    ),
    "translation": (
        "Translate into Spanish: The train leaves at half past seven.",
        "Translate to French: I have lost my passport and need help.",
        "How do you say 'See you next week' in German?",
        'Translate this to Italian: "My sister likes to cook for her friends."',
        "Translate to Portuguese: Where can I buy a ticket?",
    ),
    "short creative": (
        "Write a haiku about rain on a tin roof.",
        "Write a four-line poem about an old bicycle.",
        "Write a very short story about a fox who finds a mirror.",
        "Invent a name and a slogan for a coffee shop on a boat.",
        "Write a short dialogue between the sun and a snowman.",
    ),
    "stepwise maths": (
        "A box holds 12 eggs. How many boxes are needed for 150 eggs? Explain step by step.",
        "Solve 3x - 7 = 20 step by step.",
        "A shirt costs 40 dollars and is reduced by 15 percent. What is the new price?",
        "Find the perimeter of a rectangle that is 9 cm long and 4 cm wide, with explanation.",
        "If a car uses 6 liters for 100 km, how much does it use for 250 km? Show the steps.",
    ),
    "code review": (
        "Review this code:\n\ndef avg(l):\n    s = 0\n    for i in range(1, len(l)):\n"
        "        s = s + l[i]\n    return s / len(l)",
        "What is wrong here?\n\nint *f() {\n    int x = 5;\n    return &x;\n}",
        'Explain this code:\n\nwords = open("a.txt").read().split()\n'
        "print(sorted(set(words), key=len)[-10:])",
        "Can this be made faster?\n\nresult = []\nfor a in xs:\n    if a not in result:\n"
        "        result.append(a)",
        "Add a docstring and type hints:\n\ndef area(w, h):\n    return w * h",
    ),
    "open chat": (
        "Hey, I just finished my first marathon!",
        "What would you do on a rainy Sunday?",
        "My cat ignores me. Any advice?",
        "Tell me about yourself in two sentences.",
        "I want to surprise my parents for their anniversary. Any ideas?",
    ),
}


@dataclass
class Acceptance:
    """Counts by draft position over a set of answers."""

    verified: list[int]
    accepted: list[int]
    n_tokens: int = 0
    rounds: int = 0

    @classmethod
    def none(cls, depth: int) -> Acceptance:
        return cls([0] * depth, [0] * depth)

    def add(self, other: Acceptance) -> None:
        for k in range(len(self.verified)):
            self.verified[k] += other.verified[k]
            self.accepted[k] += other.accepted[k]
        self.n_tokens += other.n_tokens
        self.rounds += other.rounds

    @property
    def rates(self) -> list[float]:
        """Share of drafts accepted up to each position."""
        return [a / max(d, 1) for a, d in zip(self.accepted, self.verified, strict=True)]

    @property
    def conditional(self) -> list[float]:
        """Acceptance at each position where the one before was accepted."""
        before = [self.verified[0], *self.accepted[:-1]]
        return [a / max(b, 1) for a, b in zip(self.accepted, before, strict=True)]

    @property
    def tokens_per_round(self) -> float:
        return self.n_tokens / max(self.rounds, 1)


def held_out_keys(engine: Engine) -> list[bytes]:
    """What the corpus must not contain."""
    sets = (PROMPTS, second_set.PROMPTS, bench.PROMPTS)
    groups = (group for prompts in sets for group in prompts.values())
    texts = (text for group in groups for text in group)
    return [prompt_key(np.array(prompt_ids(engine, text), np.int32)) for text in texts]


def measure(
    model: Path,
    heads: Path,
    *,
    depth: int,
    max_tokens: int,
    system: str | None = None,
    n_threads: int | None = None,
    prompts: Mapping[str, Iterable[str]] = PROMPTS,
    on_answer: Callable[[str, Acceptance], None] = lambda _group, _found: None,
) -> dict[str, Acceptance]:
    """Greedy answers at a fixed depth; acceptance by group of prompts, and "all".

    system: what goes in front of every prompt, as in `Session`
    """
    found = {"all": Acceptance.none(depth)}
    with Engine.open(model, heads, n_ctx=2048, n_threads=n_threads) as engine:
        for group, texts in prompts.items():
            found[group] = Acceptance.none(depth)
            for text in texts:
                prompt = prompt_ids(engine, text, system=system)
                one = _answer(engine, prompt, depth, max_tokens)
                found[group].add(one)
                found["all"].add(one)
                on_answer(group, one)
    return found


def speeds(
    model: Path,
    heads: Path,
    *,
    max_tokens: int,
    system: str | None = None,
    n_threads: int | None = None,
    prompts: Mapping[str, Sequence[str]] = PROMPTS,
) -> dict[str, tuple[float, float]]:
    """Tokens a second, plain and with automatic depth: of the first prompt of every group, and
    "all" together. Each answer is given twice and the second counts: the first one learns costs."""
    found: dict[str, tuple[float, float]] = {}
    n_tokens, seconds = [0, 0], [0.0, 0.0]
    with Engine.open(model, heads, n_ctx=2048, n_threads=n_threads) as engine:
        for group, texts in prompts.items():
            prompt = prompt_ids(engine, texts[0], system=system)
            rates = []
            ways: tuple[Depth, ...] = (0, "auto")
            for way, depth in enumerate(ways):
                stats = _second_time(engine, prompt, depth, max_tokens)
                n_tokens[way] += stats.completion_tokens - 1
                seconds[way] += stats.decode_s + stats.checking_s
                rates.append(stats.tokens_per_s)
            found[group] = rates[0], rates[1]
    plain, drafting = (n / max(s, 1e-9) for n, s in zip(n_tokens, seconds, strict=True))
    return {"all": (plain, drafting), **found}


def _second_time(engine: Engine, prompt: list[int], depth: Depth, max_tokens: int) -> Stats:
    for _ in range(2):
        generation = engine.generate(
            prompt, Sampling(temperature=0), max_tokens=max_tokens, depth=depth
        )
        for _ in generation:
            pass
    return generation.stats


def _answer(engine: Engine, prompt: list[int], depth: int, max_tokens: int) -> Acceptance:
    generation = engine.generate(
        prompt, Sampling(temperature=0), max_tokens=max_tokens, depth=depth
    )
    for _ in generation:
        pass
    stats = generation.stats
    padding = [0] * (depth - len(stats.verified))
    return Acceptance(
        stats.verified + padding,
        stats.accepted + padding,
        stats.completion_tokens - 1,
        stats.rounds,
    )
