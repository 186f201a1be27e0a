"""What people see: a plan as a table, sizes in words, a progress bar. Knows nothing of formats."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)  # fmt: skip

from mtp_cli.screen import visible
from mtp_cli.waiting import Wait
from mtp_convert.gguf.plan import Plan

notices = Console(stderr=True, highlight=False)


def size(n_bytes: int) -> str:
    """Bytes for people: 1.2 GB."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def plan_lines(plan: Plan, out: Path) -> Iterator[str]:
    """The plan, one tensor a line, with a summary: what --dry-run prints."""
    width = max((len(tensor.name) for tensor in plan.tensors), default=0)
    for tensor in plan.tensors:
        shape = " x ".join(str(n) for n in tensor.shape)
        yield f"{tensor.name:{width}}  {tensor.kind.name:5} {size(tensor.n_bytes):>9}  {shape}"
    yield ""
    yield from summary_lines(plan, out)


def summary_lines(plan: Plan, out: Path) -> Iterator[str]:
    kinds = Counter(tensor.kind.name for tensor in plan.tensors)
    formats = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    arch = plan.metadata["general.architecture"].value
    yield f"{out}: {arch}, {len(plan.tensors)} tensors ({formats}), {size(plan.n_bytes)}"
    for note in plan.notes:
        yield f"note: {note}"


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with bytes, speed and time left on stderr; in a log, a line at times."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with _bar(name, *columns) as update:
        yield update


@contextmanager
def counting_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """The same for things that are counted."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with _bar(name, *columns) as update:
        yield update


@contextmanager
def _bar(name: str, *columns: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    if not notices.is_terminal:
        with _lines(name) as update:
            yield update
        return
    with Progress(*columns, console=notices) as bar:
        task = bar.add_task(visible(name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _lines(name: str) -> Iterator[Callable[[int, int], None]]:
    """The same in a log."""
    share = 0.0

    def update(done: int, total: int) -> None:
        nonlocal share
        share = done / max(total, 1)

    with Wait(lambda: f"{name}: {share:.0%}", sys.stderr, quiet=False):
        yield update
