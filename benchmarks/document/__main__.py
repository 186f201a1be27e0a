"""`python -m benchmarks.document`: which documents there are, and whether they are today's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.document import charts
from benchmarks.document.charts import Chart
from benchmarks.document.numbers import with_numbers
from benchmarks.document.page import page
from benchmarks.document.results import FOLDER, Results, read_all
from mtp_cli.errors import MtpError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Document:
    """A file that follows from the results.

    make: its text, None when it must not be there
    mark: what tells that a file has this text, where comparing all of it would not
    """

    path: Path
    make: Callable[[], str] | None
    mark: str | None = None

    def is_current(self) -> bool:
        text = self.path.read_text() if self.path.exists() else None
        if text is None or self.make is None:
            return text is None and self.make is None
        return self.mark in text if self.mark is not None else text == self.make()

    def write(self) -> None:
        if self.make is None:
            self.path.unlink(missing_ok=True)
        else:
            self.path.write_text(self.make())


def documents(results: Results, root: Path) -> list[Document]:
    docs, readme = root / "docs", root / "README.md"
    text = readme.read_text()
    return [
        Document(docs / "measured.md", lambda: page(results)),
        _chart(docs / "speed.svg", charts.speed(results)),
        _chart(docs / "rows.svg", charts.rows(results)),
        _chart(docs / "copying.svg", charts.copying(results)),
        Document(readme, lambda: with_numbers(text, results)),
    ]


def _chart(path: Path, chart: Chart) -> Document:
    return Document(path, chart.svg, chart.mark) if chart.numbers else Document(path, None)


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if due.")] = False,
) -> None:
    due = [one for one in documents(read_all(FOLDER), ROOT) if not one.is_current()]
    for one in due:
        print(f"{one.path.relative_to(ROOT)}: {'differs' if check else 'written'}")
        if not check:
            one.write()
    sys.exit(1 if check and due else 0)


if __name__ == "__main__":
    try:
        typer.run(main)
    except MtpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
