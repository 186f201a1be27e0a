"""Runs the benchmark: every depth on every prompt, beside plain decoding.

Owns the order of runs and what is kept of each. Knows nothing of tables, files or plots.

A shared machine's speed moves by a tenth from one second to the next. So every answer is decoded
beside a plain one of the same prompt, on two timelines over the same weights that take turns round
by round, and ratios are taken within such a pair. Plain decoding runs beside itself too: that says
how equal the two timelines are (where their memory lies can make a few percent), and how exact a
ratio is.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtp_cli.bench.memory import peak_memory
from mtp_cli.bench.prompts import PROMPTS
from mtp_cli.bench.trace import Recorder, Trace
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Depth, Engine, Generation, Sampling
from mtp_cli.engine.depth.policy import DepthPolicy

_N_OTHER = 8  # ids of a text that has nothing in common with the prompt


@dataclass(frozen=True)
class Plan:
    """What to run. depths must hold 0, plain decoding, which all others are compared with.

    exact: verify only row counts that change no bit of the logits
    """

    classes: tuple[str, ...] = tuple(PROMPTS)
    temperatures: tuple[float, ...] = (0.0, 0.7, 1.0)
    depths: tuple[Depth, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, "auto")
    repetitions: int = 5
    max_tokens: int = 128
    exact: bool = False

    def __len__(self) -> int:
        """Pairs of answers, and the prompts' own passes."""
        n_prompts = self.repetitions * len(self.classes)
        return n_prompts * (len(self.temperatures) * len(self.depths) + 1)

    def prompts(self) -> Iterator[tuple[int, str, str]]:
        """(repetition, class, text), all classes before any comes again."""
        for repetition in range(self.repetitions):
            for cls in self.classes:
                texts = PROMPTS[cls]
                yield repetition, cls, texts[repetition % len(texts)]


@dataclass(frozen=True)
class Record:
    """One answer.

    tokens, seconds:   of decoding alone, without the prompt and the token it gives
    over_beside:       how many times the speed of the plain answer beside it
    verified, accepted: how often each draft position was verified, and accepted
    is_fork:           greedy, and not the answer that plain decoding gave
    """

    cls: str
    temperature: float
    depth: Depth
    repetition: int
    tokens: int
    seconds: float
    over_beside: float
    rounds: int
    verified: list[int]
    accepted: list[int]
    is_fork: bool

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    def to_json(self) -> dict[str, Any]:
        """verified, accepted: of verified ids, in all; by position in `by_position`."""
        return {
            "class": self.cls,
            "temperature": self.temperature,
            "depth": self.depth,
            "repetition": self.repetition,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "over_beside": self.over_beside,
            "rounds": self.rounds,
            "verified": sum(self.verified),
            "accepted": sum(self.accepted),
            "by_position": {"verified": self.verified, "accepted": self.accepted},
            "is_fork": self.is_fork,
        }


@dataclass(frozen=True)
class Prefill:
    """The prompt's own pass: tokens that were not cached, and what they took."""

    cls: str
    repetition: int
    tokens: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {"class" if name == "cls" else name: value for name, value in vars(self).items()}


Pairs = dict[Depth, tuple[Generation, Generation]]  # an answer, and the plain one beside it


@dataclass
class Result:
    """What was measured.

    traces:            the greedy answer of each class and repetition, with what was proposed
    peak_memory_bytes: the most this process had in memory before the second timeline opened
    exact_row_counts:  those that `--exact` believed in at the end
    """

    records: list[Record] = field(default_factory=list)
    prefills: list[Prefill] = field(default_factory=list)
    traces: dict[tuple[str, int], Trace] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    exact_row_counts: tuple[int, ...] = (1,)


class Bench:
    """One run of a plan on one engine.

    system: what goes in front of every prompt, as in `Session`
    forgets: read each answer's prompt anew: what a draft model has read of it stays in its memory
             else, and the answers after the first would not show what reading takes
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        clock: Callable[[], float] = time.perf_counter,
        *,
        system: str | None = None,
        forgets: bool = False,
    ) -> None:
        self._forgets = forgets
        self._engine = engine
        self._plan = plan
        self._system = system
        self._clock = clock
        self._traces: dict[tuple[int, ...], Trace] = {}
        self.result = Result()

    def run(self, on_answer: Callable[[str], None]) -> Result:
        """on_answer: told the class of each pair of answers before it begins."""
        self._engine.costs()
        self._engine.forget()
        self._read_longest(self._engine)
        self.result.peak_memory_bytes = peak_memory()
        rng = random.Random(0)
        with self._engine.twin() as plain:
            self._read_longest(plain)
            for repetition, cls, text in self._plan.prompts():
                prompt = prompt_ids(self._engine, text, system=self._system)
                on_answer(cls)
                self._prefill_and_trace(cls, repetition, prompt)
                for temperature in self._plan.temperatures:
                    pairs: Pairs = {}
                    for depth in rng.sample(self._plan.depths, len(self._plan.depths)):
                        on_answer(cls)
                        if self._forgets:
                            self._forget(plain, prompt)
                        pairs[depth] = (
                            self._answer(self._engine, prompt, temperature, depth),
                            self._answer(plain, prompt, temperature, 0),
                        )
                        take_turns(pairs[depth], rng)
                    self._keep(cls, temperature, repetition, pairs)
        if self._plan.exact:
            self.result.exact_row_counts = self._engine.exact_row_counts
        return self.result

    def _read_longest(self, engine: Engine) -> None:
        """The longest prompt: memory counts once it is used. Both timelines read it first, and the
        same ones after it, since how a prompt was read with others decides how it is rounded."""
        texts = (text for _, _, text in self._plan.prompts())
        prompts = (prompt_ids(engine, text, system=self._system) for text in texts)
        for _ in self._answer(engine, max(prompts, key=len), 0.0, 0, 1):
            pass

    def _forget(self, plain: Engine, prompt: list[int]) -> None:
        """Let the draft model read another text, and nobody know the prompt."""
        for _ in self._answer(self._engine, prompt[:0:-1][:_N_OTHER], 0.0, 1, 3):
            pass
        for engine in (self._engine, plain):
            engine.forget()

    def _prefill_and_trace(self, cls: str, repetition: int, prompt: list[int]) -> None:
        """A prompt that comes again says the same again: it is recorded once."""
        key = tuple(prompt)
        recorder = Recorder()
        n_tokens = 1 if key in self._traces else self._plan.max_tokens
        answer = self._answer(self._engine, prompt, 0.0, recorder, n_tokens)
        for _ in answer:
            pass
        stats = answer.stats
        n_new = stats.prompt_tokens - stats.cached_tokens
        self.result.prefills.append(Prefill(cls, repetition, n_new, stats.prefill_s))
        if key not in self._traces:
            self._traces[key] = recorder.trace(prompt, answer.tokens)
        self.result.traces[cls, repetition] = self._traces[key]

    def _answer(
        self,
        engine: Engine,
        prompt: list[int],
        temperature: float,
        depth: Depth | DepthPolicy,
        max_tokens: int | None = None,
    ) -> Generation:
        return engine.generate(
            prompt,
            Sampling(temperature=temperature),  # a seed would keep "auto" from drawing drafts
            max_tokens=max_tokens or self._plan.max_tokens,
            depth=depth,
            exact=self._plan.exact,
            clock=self._clock,
        )

    def _keep(self, cls: str, temperature: float, repetition: int, pairs: Pairs) -> None:
        if any(answer.stats.rounds == 0 for pair in pairs.values() for answer in pair):
            return  # it ended with the token that the prompt's pass gives: nothing to compare
        for depth in self._plan.depths:
            answer, beside = pairs[depth]
            stats = answer.stats
            record = Record(
                cls,
                temperature,
                depth,
                repetition,
                tokens=len(answer.tokens) - 1,
                seconds=stats.decode_s,
                over_beside=stats.tokens_per_s / beside.stats.tokens_per_s,
                rounds=stats.rounds,
                verified=stats.verified,
                accepted=stats.accepted,
                is_fork=temperature == 0 and answer.tokens != beside.tokens,
            )
            self.result.records.append(record)


def take_turns(answers: Sequence[Generation], rng: random.Random) -> None:
    """Run answers to their ends, each a token or more at a time, as far as the others have come."""
    running, n_tokens = list(answers), 0
    while running:
        n_tokens += 1
        rng.shuffle(running)
        for answer in list(running):
            while len(answer.tokens) < n_tokens:
                if next(answer, None) is None:
                    running.remove(answer)
                    break


def shortened(plan: Plan, plain_tokens_per_s: float, seconds: float) -> Plan:
    """The plan with answers short enough for all of it to take about `seconds`."""
    affordable = int(seconds * plain_tokens_per_s / (2 * len(plan)))
    return dataclasses.replace(plan, max_tokens=max(8, min(plan.max_tokens, affordable)))


def warm_up(engine: Engine) -> float:
    """Load everything that loads at first use; tokens per second of plain decoding."""
    answer = engine.generate(
        prompt_ids(engine, PROMPTS["chat"][0]), Sampling(temperature=0), max_tokens=24, depth=0
    )
    for _ in answer:
        pass
    return answer.stats.tokens_per_s
