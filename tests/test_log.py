"""The two logs keep their form, and what names an entry leads to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOGS = ("benchmarks/LOG.md", "train/LOG.md")
MAX_LINES = 12  # of an entry, blank ones aside
MAX_COLUMNS = 100
HEADING = re.compile(r"### (\d{4}-\d{2}-\d{2}) · (\S.*\S)")
FACTS = re.compile(r"`[0-9a-f]{7,40}` · \S.*\. \*\S.*\?\*")  # commit, machine, question
SOURCES = ("mtp_cli", "convert", "train", "benchmarks", "tests", "docs")
SUFFIXES = (".py", ".md", ".h", ".cpp")


@dataclass(frozen=True)
class Entry:
    day: date
    title: str
    lines: list[str]  # the heading's among them, without blank ones
    paragraphs: list[str]  # below the heading, each in one line


def entries(log: str) -> list[Entry]:
    """The log's entries as they stand; AssertionError where a heading has another form."""
    text = (ROOT / log).read_text(encoding="utf-8")
    found = []
    for block in re.split(r"(?m)^(?=### )", text)[1:]:
        heading, _, body = block.partition("\n")
        matched = HEADING.fullmatch(heading)
        assert matched, heading
        found.append(
            Entry(
                date.fromisoformat(matched[1]),
                matched[2],
                [line for line in block.splitlines() if line.strip()],
                [" ".join(part.split()) for part in body.strip().split("\n\n")],
            )
        )
    return found


def titles() -> list[str]:
    return [entry.title for log in LOGS for entry in entries(log)]


@pytest.mark.parametrize("log", LOGS)
def test_entries_are_dated_and_in_order(log: str) -> None:
    days = [entry.day for entry in entries(log)]
    assert days
    assert days == sorted(days)


@pytest.mark.parametrize("log", LOGS)
def test_entries_are_short(log: str) -> None:
    assert [e.title for e in entries(log) if len(e.lines) > MAX_LINES] == []


@pytest.mark.parametrize("log", LOGS)
def test_lines_are_narrow(log: str) -> None:
    lines = (ROOT / log).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > MAX_COLUMNS] == []


@pytest.mark.parametrize("log", LOGS)
def test_entries_name_commit_machine_and_question_and_then_say_something(log: str) -> None:
    for entry in entries(log):
        facts, *rest = entry.paragraphs
        assert FACTS.fullmatch(facts), entry.title
        assert rest, entry.title


def test_a_title_names_one_entry() -> None:
    every = titles()
    assert len(every) == len(set(every))


@pytest.mark.parametrize("log", LOGS)
def test_what_is_overturned_names_a_later_entry(log: str) -> None:
    order = [entry.title for entry in entries(log)]
    for place, entry in enumerate(entries(log)):
        for by in re.findall(r'Overturned by "([^"]+)"', " ".join(entry.paragraphs)):
            assert by in order[place + 1 :], entry.title


def test_what_names_an_entry_leads_to_one() -> None:
    every = titles()
    for path in (path for folder in SOURCES for path in (ROOT / folder).rglob("*")):
        if path.suffix not in SUFFIXES:
            continue
        text = re.sub(r"\n\s*(#|//)?\s*", " ", path.read_text(encoding="utf-8"))
        for named in re.findall(r'\bLOG\.md, "([^"]+)"', text):
            assert any(title.startswith(named) for title in every), f"{path}: {named}"
