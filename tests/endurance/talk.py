"""A long conversation with the built-in model, each answer beside plain decoding of its prompt.

    python -m tests.endurance.talk --minutes 120

It asks, asks again, undoes, goes on, saves and loads, and is interrupted, at random, in a context
that fills every few exchanges. Greedy and seeded answers must be plain decoding's, token by token;
memory must not grow after the first third, and no process may be left.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import psutil

from mtp_cli import models
from mtp_cli.conversation import saved
from mtp_cli.conversation.session import Depth, Session, Settings
from mtp_cli.engine import Engine, Generation, Sampling
from mtp_cli.engine.grammar.constraint import Constraint
from mtp_cli.errors import MtpError

N_CTX = 768
MOST_GROWTH = 32 << 20  # bytes, of allocators' noise
_TOPICS = ("rain", "a lighthouse", "sorting a list", "bread", "the moon", "trains", "primes", "tea")
_FORMS = (
    "Tell me about {}.",
    "Write five lines about {} and {}.",
    "Repeat this sentence three times: {} and {} go well together.",
    "List ten words that have to do with {}.",
    "Write a Python function about {}.\n\n```python\ndef f(x):\n    return x\n```",
    "What did I ask before? And {}?",
    "\u65e5\u672c\u8a9e \u2014 {} \U0001f600 e\u0301",
)


class Beside:
    """An engine whose finished answers are asked of another one, with plain decoding.

    Both read the same prompts one after the other, so that both keep the same of each.
    """

    def __init__(self, engine: Engine, plain: Engine) -> None:
        self._engine, self._plain = engine, plain
        self._asked: tuple[list[int], Sampling, Generation] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        max_tokens: int,
        depth: Depth,
        exact: bool,
        constraint: Constraint | None,
    ) -> Generation:
        generation = self._engine.generate(
            prompt,
            sampling,
            max_tokens=max_tokens,
            depth=depth,
            exact=exact,
            constraint=constraint,
        )
        self._asked = [*prompt], sampling, generation
        return generation

    def is_plain(self) -> bool:
        """Whether the newest answer is plain decoding's."""
        assert self._asked is not None
        prompt, sampling, generation = self._asked
        n = len(generation.tokens)
        plain = self._plain.generate(prompt, sampling, max_tokens=n, depth=0)
        return [token for ids in plain for token in ids] == generation.tokens


class Talk:
    """session: of the conversation; counts: what was done, and what came of it."""

    def __init__(self, beside: Beside, random: Random, folder: Path) -> None:
        self.beside, self.random, self.file = beside, random, folder / "talk.json"
        self.session = Session(beside)
        self.counts: Counter[str] = Counter()
        self.n_tokens = 0
        self.forks: list[str] = []

    def step(self) -> None:
        """One random thing; what cannot be done now is refused in a line, and that is counted."""
        name = self.random.choices(*zip(*_STEPS.items(), strict=True))[0]
        try:
            getattr(self, name)()
        except MtpError:
            self.counts["refused"] += 1
            return
        self.counts[name] += 1

    def ask(self) -> None:
        form = self.random.choice(_FORMS)
        self._hear(self.session.ask(form.format(*self.random.sample(_TOPICS, 2)), self._settings()))

    def regenerate(self) -> None:
        self._hear(self.session.regenerate(self._settings()))

    def more(self) -> None:
        self._hear(self.session.more(self._settings()))

    def undo(self) -> None:
        self.session.undo()

    def clear(self) -> None:
        self.session.messages = []

    def save_and_load(self) -> None:
        messages = self.session.messages
        saved.save(self.file, saved.Conversation(None, messages, "built in", {}))
        loaded = saved.load(self.file)
        if list(loaded.messages) != messages:
            raise RuntimeError("a saved conversation is not the one that is loaded")
        self.session.messages = list(loaded.messages)

    def _settings(self) -> Settings:
        sampling = Sampling(temperature=0.0)
        if self.random.random() < 0.4:
            sampling = Sampling(temperature=0.7, seed=self.random.randrange(1000))
        if self.random.random() < 0.2:
            sampling = dataclasses.replace(sampling, penalty_repeat=1.1)
        depth: Depth = self.random.choice(("auto", "auto", 1, 3, 8))
        n = self.random.choice((16, 60, 200))
        return Settings(sampling, n, depth, exact=self.random.random() < 0.2)

    def _hear(self, answer: Any) -> None:
        """All of it, or up to an interruption: by Ctrl-C's way, or by going away."""
        heard: Iterator[str] = iter(answer)
        n_heard = self.random.randrange(40) if self.random.random() < 0.3 else None
        for n, _ in enumerate(heard):
            if n == n_heard:
                self.counts["interrupted"] += 1
                if self.random.random() < 0.5:
                    break
                answer.stop()
        heard.close()  # type: ignore[attr-defined]
        self.n_tokens += len(answer.tokens)
        self.counts["trimmed"] += bool(answer.n_left_out)
        self.counts["answers"] += 1
        if not self.beside.is_plain():
            self.forks.append(f"answer {self.counts['answers']}")


_STEPS = {"ask": 12, "regenerate": 3, "more": 3, "undo": 3, "save_and_load": 1, "clear": 0.3}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.talk", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, help="1 where others use the machine, too")
    options = parser.parse_args()
    files = models.find()
    process, resident = psutil.Process(), list[int]()
    with (
        tempfile.TemporaryDirectory() as folder,
        Engine.open(files.model, files.heads, n_ctx=N_CTX, n_threads=options.threads) as engine,
        engine.twin() as plain,
    ):
        talk = Talk(Beside(engine, plain), Random(options.seed), Path(folder))
        end = said = time.monotonic()
        end += 60 * options.minutes
        while time.monotonic() < end:
            talk.step()
            resident.append(process.memory_info().rss)
            if time.monotonic() - said > 30:
                said = time.monotonic()
                print(_line(talk, resident), file=sys.stderr)
    print(_line(talk, resident))
    print(", ".join(f"{name} {n}" for name, n in sorted(talk.counts.items())))
    growth = max(resident) - max(resident[: len(resident) // 3 + 1])
    left = process.children(recursive=True)
    faults = [f"{fork}: not plain decoding's" for fork in talk.forks]
    faults += [f"memory grew by {growth >> 20} MB"] if growth > MOST_GROWTH else []
    faults += [f"{len(left)} processes left"] if left else []
    for fault in faults:
        print(f"FAULT {fault}")
    return int(bool(faults))


def _line(talk: Talk, resident: Sequence[int]) -> str:
    return (
        f"{talk.counts['answers']} answers of {talk.n_tokens:,} tokens, {len(talk.forks)} of them "
        f"not plain decoding's; memory {resident[0] >> 20} MB at first, {resident[-1] >> 20} MB "
        f"now, at most {max(resident) >> 20} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
