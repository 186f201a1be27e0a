"""Asks the built-in model, as mtp-chat would, in several processes of one thread each.

An answer is plain decoding's, drafted or not: a seed, or none, is all it depends on.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.answers.checks import has_whole_code
from benchmarks.answers.items import ITEMS, Item
from benchmarks.answers.settings import BARE, SYSTEMS, Setting
from mtp_cli.conversation.session import Engine as SessionEngine
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.engine import Engine

_N_CTX = 1024  # tokens; a request and 200 tokens of answer have room
_DEPTH = 1  # the depth that pays on every machine seen; a fixed one needs no calibration

_engine: Engine


@dataclass(frozen=True)
class Job:
    """Some of the requests under one setting; requests: indices into ITEMS."""

    setting: Setting
    seed: int
    requests: tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """One answer, and whether it was right."""

    setting: Setting
    seed: int
    request: str
    answer: str
    n_tokens: int
    is_right: bool


def ask_all(
    jobs: Sequence[Job], model: Path, heads: Path | None, n_processes: int
) -> Iterator[list[Asked]]:
    """The answers of each job, in any order."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(n_processes, _open, (model, heads)) as pool:
        yield from pool.imap_unordered(_ask_job, jobs)


def _open(model: Path, heads: Path | None) -> None:
    global _engine
    _engine = Engine.open(model, heads, n_ctx=_N_CTX, n_threads=1)


def _ask_job(job: Job) -> list[Asked]:
    return [ask(_engine, job.setting, job.seed, index) for index in job.requests]


def ask(engine: SessionEngine, setting: Setting, seed: int, index: int) -> Asked:
    """seed: of the run; every request draws with one of its own, or all would share their luck."""
    item = ITEMS[index]
    is_bare = setting.system == "bare"
    session = Session(engine, system=SYSTEMS[setting.system], raw=is_bare)
    request = BARE.format(item.request) if is_bare else item.request
    sampling = setting.sampling(seed * len(ITEMS) + index)
    settings = Settings(sampling, max_tokens=item.max_tokens, depth=_DEPTH)
    text, n_tokens = _listen(session, request, settings, item)
    return Asked(setting, seed, item.request, text, n_tokens, item.is_right(text))


def _listen(session: Session, request: str, settings: Settings, item: Item) -> tuple[str, int]:
    answer = session.ask(request, settings)
    for _ in answer:
        if item.kind == "program" and has_whole_code(answer.text):
            answer.stop()
    return answer.text, len(answer.tokens)
