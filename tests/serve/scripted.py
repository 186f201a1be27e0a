"""The scripted engine of the chat's tests with what a server needs besides; a server over it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mtp_cli.conversation.choice import usual_template
from mtp_cli.conversation.session import Depth
from mtp_cli.engine import Sampling
from mtp_cli.engine.grammar.constraint import Constraint, Unconstrained
from mtp_cli.engine.grammar.source import Grammar
from mtp_cli.engine.types import Floats, Saved
from mtp_cli.serve.answers import Desk
from mtp_cli.serve.app import House, local_names
from mtp_cli.serve.metrics import Metrics
from mtp_cli.serve.prompts import Prompts
from mtp_cli.serve.run import Server, listening
from mtp_cli.serve.timelines import Timelines
from mtp_cli.serve.worker import Worker
from tests.chat.scripted import CHATML, Rounds, ScriptedEngine, ScriptedGeneration

HOST = "127.0.0.1"
KEPT = 1 << 20  # bytes for conversations, which are small here


class ServedEngine(ScriptedEngine):
    """Answers from a script; each token's row of logits has it on top."""

    can_shorten = True

    def __init__(self, *answers: Rounds, **options: Any) -> None:
        super().__init__(*answers, **options)
        self.n_forgotten = 0
        self.grammars: list[Grammar] = []
        self.constraints: list[Constraint | None] = []

    @property
    def cached(self) -> list[int]:
        return self._timeline

    @cached.setter
    def cached(self, _ids: list[int]) -> None:
        """The chat's engine keeps counts there."""

    def constrain(self, grammar: Grammar, begun: bytes = b"") -> Constraint:
        """What keeps to nothing: the script says what is said."""
        self.grammars.append(grammar)
        return Unconstrained()

    def forget(self) -> None:
        self.n_forgotten += 1
        self._timeline = []

    def save(self) -> Saved:
        return Saved(tuple(self._timeline), np.zeros(100, np.uint8))

    def restore(self, saved: Saved) -> None:
        self._timeline = list(saved.ids)

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        max_tokens: int,
        depth: Depth = "auto",
        exact: bool = False,
        watch: Callable[[int, Floats], None] | None = None,
        constraint: Constraint | None = None,
    ) -> ScriptedGeneration:
        self.constraints.append(constraint)
        said = [token for ids in self._answers[0] for token in ids]
        if watch is not None:
            for token in said:
                logits = np.zeros(self.n_vocab, np.float32)
                logits[token] = 10
                watch(token, logits)
        return super().generate(prompt, sampling, max_tokens=max_tokens, depth=depth, exact=exact)


def desk(
    engine: ServedEngine, *, system: str | None = None, metrics: Metrics | None = None
) -> Desk:
    prompts = Prompts(engine, usual_template(engine.metadata), variables={}, system=system)
    timelines = Timelines(engine, KEPT)
    if metrics is None:
        return Desk(engine, prompts, timelines)
    return Desk(engine, prompts, timelines, on_stats=metrics.count_answer)


@contextlib.contextmanager
def serving(
    engine: ServedEngine, *, queue: int = 8, system: str | None = None, **options: Any
) -> Iterator[str]:
    """A server over a scripted engine, on a socket of its own; gives where clients begin."""
    metrics = Metrics()
    names = ("scripted", "other-name")
    worker = Worker(queue)
    fields: dict[str, Any] = {"hosts": local_names(HOST), **options}
    house = House(desk(engine, system=system, metrics=metrics), worker, metrics, names, 1, **fields)
    listener = listening(HOST, 0)
    server = Server(house)
    worker.start()
    thread = threading.Thread(target=lambda: server.run([listener]))
    thread.start()
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.005)


__all__ = ["CHATML", "HOST", "ServedEngine", "desk", "serving", "until"]
