"""Whether an answer is right: in its words, in its form, or by running the code it holds.

Knows text only. The code of a model runs in a process of its own, with limits on time and memory
and no files to write, but it is no sandbox.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping

Check = Callable[[str], bool]

_FENCED = re.compile(r"```(?:[a-zA-Z]*)\n(.*?)(?:```|\Z)", re.DOTALL)
_CLOSED = re.compile(r"```(?:[a-zA-Z]*)\n.*?```", re.DOTALL)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*(.+)$", re.MULTILINE)
_RUN_S = 3.0  # a right answer takes milliseconds; an endless loop is ended
_LIMITS = """\
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""
_PASSED = "every assertion held"


def says(*accepted: str) -> Check:
    """One of the accepted words or phrases stands in the answer, whole, in any case."""
    patterns = [re.compile(_whole(phrase), re.IGNORECASE) for phrase in accepted]
    return lambda answer: any(pattern.search(_plain(answer)) for pattern in patterns)


def says_in_order(*words: str) -> Check:
    """The words stand in the answer one right after another, as a row or as a list."""
    between = r"\W+(?:and\s+|\d+\.\s+)?\W*"
    pattern = re.compile(between.join(map(_whole, words)), re.IGNORECASE)
    return lambda answer: bool(pattern.search(_plain(answer)))


def says_rather(right: str, wrong: str) -> Check:
    """`right` stands in the answer, and `wrong` not before it."""

    def check(answer: str) -> bool:
        found = re.search(f"{_whole(right)}|{_whole(wrong)}", _plain(answer), re.IGNORECASE)
        return found is not None and found[0].casefold() == right.casefold()

    return check


def is_only(*accepted: str) -> Check:
    """The answer is one of the accepted texts, punctuation, quotes and case apart."""
    wanted = {_bare(text) for text in accepted}
    return lambda answer: _bare(answer) in wanted


def is_upper(text: str) -> Check:
    """`text` stands in the answer in capital letters, and not as it was given."""
    return lambda answer: text.upper() in answer and text not in answer


def matches(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda answer: bool(compiled.search(answer))


def shorter_than(n_words: int) -> Check:
    """Fewer than `n_words` words, and at least one."""
    return lambda answer: 0 < len(answer.split()) < n_words


def has_items(n: int, among: str = "") -> Check:
    """A list of `n` different items, bulleted, numbered or in a row, each holding one of the words
    in `among` if there are any."""
    known = set(among.split())

    def check(answer: str) -> bool:
        items = _items(answer)
        is_known = not known or all(known.intersection(_words(item)) for item in items)
        return len(items) == len(set(items)) == n and is_known

    return check


def is_json_with(wanted: Mapping[str, object]) -> Check:
    """The answer, or its fenced block, is a JSON object that holds these pairs."""

    def check(answer: str) -> bool:
        fenced = _FENCED.search(answer)
        try:
            found = json.loads(fenced[1] if fenced else answer)
        except json.JSONDecodeError:
            return False
        return isinstance(found, dict) and found.items() >= wanted.items()

    return check


def both(first: Check, second: Check) -> Check:
    return lambda answer: first(answer) and second(answer)


def passes(assertions: str) -> Check:
    """The code of the answer runs, and the assertions hold after it."""
    return lambda answer: _runs(f"{code_of(answer)}\n\n{assertions}\nprint({_PASSED!r})\n")


def code_of(answer: str) -> str:
    """The first fenced block, or the whole answer; what was cut off at its end is left out."""
    fenced = _FENCED.search(answer)
    lines = (fenced[1] if fenced else answer).splitlines()
    while lines and not _compiles("\n".join(lines)):
        lines.pop()
    return "\n".join(lines)


def has_whole_code(answer: str) -> bool:
    """A fenced block is closed: what comes after it changes nothing."""
    return bool(_CLOSED.search(answer))


def _runs(program: str) -> bool:
    limits = _LIMITS if sys.platform == "linux" else ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", limits + program],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=folder,
                env={},
                timeout=_RUN_S,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and done.stdout.decode(errors="replace").endswith(f"{_PASSED}\n")


def _compiles(source: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model's "\\d" is its own affair
        try:
            compile(source, "answer", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def _items(answer: str) -> list[str]:
    items: list[str] = _ITEM.findall(answer)
    if not items:
        row = answer.split(":")[-1]
        lines = [line for line in row.splitlines() if line.strip()]
        items = lines if len(lines) > 1 else re.split(r",\s*(?:and\s+)?|\s+and\s+", row)
    return [item for item in map(_bare, items) if item]


def _plain(text: str) -> str:
    """Without thousands separators and with straight apostrophes."""
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.replace("\u2019", "'"))


def _whole(phrase: str) -> str:
    """A pattern for a phrase that is part of no longer word and no longer number."""
    return rf"(?<!\w)(?<!\d[.,]){re.escape(phrase)}(?!\w|[.,]\d)"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _bare(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", " ", text.casefold()).split())
