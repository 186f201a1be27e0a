"""What a run will take on this machine, and what to expect of it, before it starts.

Owns the trial of the speeds that a run's time follows from, how hours are divided between writing
and training, and what earlier runs reached. Knows nothing of the command line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mtp_cli.bench.held_out import MAX_TOKENS, PROMPTS
from mtp_cli.conversation.prompt import prompt_ids
from mtp_cli.engine import Engine, Sampling
from mtp_cli.models import defaults
from mtp_train.allocator import keep_freed_memory
from mtp_train.corpus import Role, Sample, make_vocabulary
from mtp_train.fit import Run, Settings
from mtp_train.generate import Generator
from mtp_train.generate import Settings as Writing
from mtp_train.layer_rows import unit_rows
from mtp_train.measure import N_CTX, n_answered
from mtp_train.recipe import N_DRAFT, Choices, head_shape, new_head
from mtp_train.tables import Tables
from mtp_train.target import Target

TRIAL_S = 20.0  # of writing; the first seconds of a minute are slower than an hour's mean
ANSWERS_S = 5.0  # of answers as the report's
LEAST_TOKENS = 8  # of them, however slow: the median of fewer is chance
TRIAL_STEPS = 3  # optimizer steps, the first of which is not counted
# Steps for each token of text: answers are seven tenths of it, a step sees 3,400 of them, and each
# is seen four times. Heads that saw them seven times had learned them by heart (train/LOG.md,
# "Overfitting in the first run").
STEPS_PER_TOKEN = 4 * 0.7 / 3400
PLANNED = 0.95  # of the hours; the rest goes to loading, to checkpoints and to held-out texts
# Of the report at the end; without drafts they take about as long as with.
REPORT_TOKENS = n_answered(PROMPTS, MAX_TOKENS)

# Tokens to train on, and first drafts accepted in the real loop: the first four runs of
# train/LOG.md, each of which went on from the head before it.
LOGGED = ((0.73e6, 0.45), (1.75e6, 0.50), (2.81e6, 0.54), (4.46e6, 0.58))


@dataclass(frozen=True)
class Pace:
    """tokens: of text, steps: of the optimizer, answered: tokens of the report's answers; all an
    hour."""

    tokens: float
    steps: float
    answered: float

    @property
    def report_hours(self) -> float:
        """That the report at the end takes, at most: answers may be shorter."""
        return REPORT_TOKENS / self.answered

    def hours(self, n_tokens: float, n_steps: float) -> float:
        """Of a run, its report included."""
        return n_tokens / self.tokens + n_steps / self.steps + self.report_hours

    def left(self, hours: float) -> float:
        """Of these hours, for writing and training."""
        return max(0.0, PLANNED * hours - self.report_hours)

    def divided(self, hours: float, n_written: int = 0) -> tuple[int, int]:
        """How much text and how many steps these hours buy, where n_written tokens are there."""
        left = self.left(hours)
        for_more = left - STEPS_PER_TOKEN * n_written / self.steps
        more = max(0.0, for_more / (1 / self.tokens + STEPS_PER_TOKEN / self.steps))
        if more > 0:
            return n_written + int(more), max(1, int(STEPS_PER_TOKEN * (n_written + more)))
        return n_written, max(1, int(left * self.steps))


def expected(n_tokens: float) -> str:
    """First drafts accepted after training on so much text, a bound outside of what was logged."""
    tokens, found = zip(*LOGGED, strict=True)
    rate = float(np.interp(np.log(n_tokens), np.log(tokens), found))
    bound = "at most " * (n_tokens < tokens[0]) + "at least " * (n_tokens > tokens[-1])
    return f"{bound}{rate:.2f}"


def tried(
    target: Target,
    writer: Path,
    layers: tuple[int, ...],
    *,
    n_slots: int,
    n_threads: int,
    device: str,
) -> Pace:
    """All speeds, tried for about half a minute. writer: the target, or the copy that writes."""
    answered = answering(target.path, n_threads)
    with TemporaryDirectory() as folder:
        tokens = _writing(writer, Path(folder), layers, n_slots, n_threads)
        steps = _training(target, Path(folder), layers, device)
    return Pace(3600 * tokens, 3600 * steps, 3600 * answered)


def answering(model: Path, n_threads: int, seconds: float = ANSWERS_S) -> float:
    """Tokens a second, of answers one after another without drafts, tried for so long or a little
    longer.

    By the median token: a machine that stands still meanwhile would make days of minutes.
    """
    system, spent = defaults(model).system, list[float]()
    with Engine.open(model, n_ctx=N_CTX, n_threads=n_threads) as engine:
        ends = time.monotonic() + seconds
        for text in chain.from_iterable(PROMPTS.values()):
            answer = engine.generate(
                prompt_ids(engine, text, system=system),
                Sampling(temperature=0),
                max_tokens=MAX_TOKENS,
                depth=0,
            )
            next(answer, None)  # reads the prompt
            before = time.monotonic()
            for tokens in answer:
                now = time.monotonic()
                spent.append((now - before) / len(tokens))
                before = now
                if now > ends and len(spent) >= LEAST_TOKENS:
                    return 1 / float(np.median(spent))
    return 1 / float(np.median(spent)) if spent else math.inf  # answers that are all empty


def _writing(
    writer: Path, folder: Path, layers: tuple[int, ...], n_slots: int, n_threads: int
) -> float:
    """Tokens a second."""
    settings = Writing(tokens=1, n_slots=n_slots, layers=layers)
    generator = Generator(writer, folder, settings, n_threads)
    try:
        generator.step()
        started, n_steps = time.monotonic(), 0
        while time.monotonic() < started + TRIAL_S:
            generator.step()
            n_steps += 1
        return n_slots * n_steps / (time.monotonic() - started)
    finally:
        generator.close()


def _training(target: Target, folder: Path, layers: tuple[int, ...], device: str) -> float:
    """Steps a second of all three draft steps, which half of a run's are."""
    n_draft = min(N_DRAFT, target.sizes.n_vocab)
    vocabulary = make_vocabulary(np.arange(n_draft, dtype=np.int32), target.token_embd[:n_draft])
    final = bool(layers) and target.gives_final_rows
    choices = Choices(n_draft, None, layers, with_final=final)
    shape = head_shape(target, n_draft, choices)
    settings = Settings.cooldown(TRIAL_STEPS)
    seconds: list[float] = []
    run = Run(
        folder,
        target.fingerprint,
        settings,
        new_head(target, shape, vocabulary, 1).to(torch.device(device)),
        [replace(text, with_final=final) for text in _texts(target, layers, n_draft)],
        vocabulary,
        torch.tensor(target.output[:n_draft]).bfloat16().to(device),
        tables=Tables(target.token_embd, target.output),
    )
    keep_freed_memory()  # as fit does
    run.train([], lambda at, _loss: seconds.append(at.seconds), lambda _at, _found: None)
    return (TRIAL_STEPS - 1) / (seconds[-1] - seconds[0])


def _texts(target: Target, layers: Sequence[int], n_draft: int) -> list[Sample]:
    """Noise of the lengths that texts have, a batch for each step."""
    rng, found = np.random.default_rng(1), []
    for _ in range(20 * TRIAL_STEPS):
        rows = unit_rows(rng.standard_normal((250, target.sizes.n_embd), np.float32), 0.0)
        roles = np.repeat(np.array([Role.GIVEN, Role.GREEDY], np.uint8), (70, 180))
        ids = rng.integers(0, n_draft, 250, dtype=np.int32)
        found.append(Sample(ids, roles, rows, tuple(rows for _ in layers)))
    return found
