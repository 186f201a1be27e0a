"""Reads recorded results and says what they hold for. Knows nothing of what was measured."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError

FOLDER = Path(__file__).parents[1] / "results"

Content = dict[str, Any]
Results = Mapping[str, Content]  # by the file's name, without .json

_JSON_OPTION = re.compile(r" --json \S+")


def read_result(path: Path) -> Content:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MtpError(f"{path.name}: no result that can be read: {error}") from None
    if not isinstance(content, dict):
        raise MtpError(f"{path.name}: no result: expected an object")
    return content


def read_all(folder: Path) -> dict[str, Content]:
    return {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}


def command(content: Content) -> str:
    """How it was measured, without where it was written to."""
    return _JSON_OPTION.sub("", str(content["command"]))


def holds_for(content: Content, name: str | None = None) -> str:
    """Command, day, commit and machine: a paragraph of Markdown, or an item of a list by name."""
    machine = content["machine"]
    vectors = machine["vectors"]
    kernels = f"our kernels with {vectors}" if vectors else "llama.cpp's kernels"
    cores = f"{machine['cores']} core" + "s" * (machine["cores"] != 1)
    parts = [
        f"`{command(content)}`",
        f"{content['date']}, commit `{content['commit']}`",
        f"{machine['processor']}, {cores}, {kernels}",
        f"llama-cpp-python {content['llama_cpp_python']}",
    ]
    said = " · ".join(parts + ["**a quick run**: fewer repetitions"] * bool(content["quick"]))
    start, indent = ("", "") if name is None else (f"- {name}: ", "  ")
    return textwrap.fill(
        start + said, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], n_text: int = 1) -> str:
    """A Markdown table. n_text: columns of text, the first ones; the others are numbers."""
    lines = [head, ["---"] * n_text + ["---:"] * (len(head) - n_text), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def prose(text: str) -> str:
    """A paragraph in lines that a diff can be read in."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def not_recorded(*names: str) -> str:
    """What stands in place of numbers that nobody measured."""
    return f"Not recorded yet: `python -m benchmarks.record {' '.join(names)}` does."
