"""Where a command writes, and how its plan is carried out, or only shown.

Owns what is said of it meanwhile. Knows nothing of what a plan is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtp_cli.screen import visible
from mtp_cli.whole_file import check_place

if TYPE_CHECKING:  # it loads numpy
    from mtp_convert.gguf.plan import Plan


def say(line: str) -> None:
    from mtp_convert.commands.report import notices

    notices.print(visible(line), markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Destination:
    """Where a command writes, what it reads meanwhile, and what was asked for."""

    output: Path
    inputs: Sequence[Path]
    force: bool
    dry_run: bool

    def check(self) -> None:
        from mtp_convert.commands.output import check_output

        check_output(self.output, self.inputs, self.force)
        if not self.dry_run:
            check_place(self.output)


def execute(plan: Plan, destination: Destination) -> None:
    """Show the plan, or run that very plan."""
    from mtp_convert.commands.output import marked
    from mtp_convert.commands.report import plan_lines, progress_bar, summary_lines
    from mtp_convert.gguf.write import write

    destination.check()
    plan = marked(plan)
    if destination.dry_run:
        for line in plan_lines(plan, destination.output):
            typer.echo(visible(line))
        return
    with progress_bar(destination.output.name) as progress:
        write(plan, destination.output, progress)
    for line in summary_lines(plan, destination.output):
        say(line)
