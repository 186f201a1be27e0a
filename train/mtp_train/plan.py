"""What `mtp-train run` is going to do: how much text, how many steps.

Owns the plan's file, so that a run that is stopped goes on with the numbers it began with, and the
lines that say what it will take. The trial of this machine's speeds is in `forecast`.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mtp_cli.errors import MtpError
from mtp_train.batching import bf16_copy
from mtp_train.files import written_whole
from mtp_train.forecast import Pace, expected, tried
from mtp_train.layer_rows import chosen_layers
from mtp_train.preflight import check_writing
from mtp_train.target import Target

_PLAN = "plan.json"
_ASKED = (1.0, 3.0, 8.0)  # hours that a forecast tells of
_RSS_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss


@dataclass(frozen=True)
class Plan:
    """tokens of text to be there in all, and optimizer steps of the whole run."""

    tokens: int
    steps: int


def plan_of(
    model: Path,
    folder: Path,
    given: Plan,
    hours: float | None,
    *,
    bf16: bool,
    device: str,
    n_threads: int,
    n_written: int,
    say: Callable[[str], None],
) -> Plan:
    """What to do, said beforehand; a folder that has a plan keeps to it.

    given: the plan where no hours are
    """
    begun = _read(folder)
    if begun is not None:
        say(f"going on: {begun.tokens:,} tokens of text, {begun.steps:,} steps in all")
        return begun
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    target = Target(model)
    layers = chosen_layers(target, None)
    writer = bf16_copy(model, folder) if bf16 else model
    here = tried(target, writer, layers, n_slots=128, n_threads=n_threads, device=_named(device))
    plan = given
    if hours:
        left = hours - (time.monotonic() - started) / 3600
        check_hours(hours, here, left)
        plan = Plan(*here.divided(left, n_written))
    n_tokens = max(0, plan.tokens - n_written)
    n_bytes = check_writing(
        model, folder, n_tokens=n_tokens, bf16=bf16, trains=True, n_layers=len(layers)
    )
    memory = _peak_bytes() + 2 * plan.tokens * target.sizes.n_embd
    for line in lines(here, plan, n_tokens, memory, n_bytes):
        say(line)
    with written_whole(folder / _PLAN) as partial:
        partial.write_text(json.dumps(asdict(plan)) + "\n")
    return plan


def lines(here: Pace, plan: Plan, n_tokens: int, memory: int, disk: int) -> list[str]:
    """What a run of this plan will take, n_tokens of which are to be written, and what earlier
    ones reached."""
    said = [
        f"here: {here.tokens:,.0f} tokens of text or {here.steps:,.0f} steps an hour",
        f"this run: {plan.tokens:,} tokens of text, {plan.steps:,} steps; about "
        f"{_time(here.hours(n_tokens, plan.steps))}, up to {_time(here.report_hours)} of them for "
        f"the report at the end; {memory / 1e9:.1f} GB of memory, {disk / 1e9:.1f} GB of disk",
    ]
    asked = [hours for hours in _ASKED if here.left(hours) > 0]
    if asked:
        reached = ", ".join(expected(here.divided(hours)[0]) for hours in asked)
        said.append(
            f"first drafts accepted after {_listed(asked)} hours at this pace, by the logged runs "
            f"of the built-in model: {reached}"
        )
    return said


def _listed(hours: Sequence[float]) -> str:
    *first, last = (f"{one:g}" for one in hours)
    return f"{', '.join(first)} and {last}" if first else last


def check_hours(hours: float, here: Pace, left: float) -> None:
    """That something is left of them to train in. left: hours, after the trial"""
    if not here.left(left):
        raise MtpError(
            f"--hours {hours:g}: too few: the report at the end alone takes up to "
            f"{_time(here.report_hours)} here; name more, or --tokens and --steps instead"
        )


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"


def _read(folder: Path) -> Plan | None:
    path = folder / _PLAN
    try:
        return Plan(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise MtpError(f"{path}: cannot be read; delete it, and the run is planned anew") from error


def _named(device: str) -> str:
    from mtp_train.recipe import device_named

    return str(device_named(device))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_BYTES
