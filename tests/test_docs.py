"""What the documents say is there: links lead somewhere, commands exist and know their options.

Lines are narrow, the README is short, and the drawing of imports is the code's.
"""

from __future__ import annotations

import functools
import importlib
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from mtp_cli.chat import dispatch
from tests import rooms

ROOT = Path(__file__).parent.parent
FOLDERS = (".", "docs", "convert", "train", "findings", ".github", ".github/ISSUE_TEMPLATE")
FOUND = (path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
PAGES = sorted(str(p.relative_to(ROOT)) for p in FOUND if p.name != "LOG.md")  # logs tell the past
NARROW = [p for p in PAGES if not p.startswith(("convert/", "train/"))]
MOST_README, MOST_COLUMNS = 100, 100

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:(?:^|\n)\n)((?: {4}.*\n|\n)+)")
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
OURS = re.compile(r"(?:\S*/)?(mtp-[a-z]+|python[0-9.]*)$")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """Without blocks of code."""
    return INDENTED.sub("\n\n", FENCED.sub("", text_of(page)))


def anchors(page: str) -> set[str]:
    """What forges make of headings: small letters, words with hyphens between."""
    headings = HEADING.findall(FENCED.sub("", text_of(page)))
    return {re.sub(r"[^\w\- ]", "", h.lower().replace("`", "")).replace(" ", "-") for h in headings}


def leads_somewhere(page: str, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (ROOT / page).parent / name if name else ROOT / page
    if "://" in target:
        return True
    return path.exists() and (
        not anchor or anchor in anchors(str(path.resolve().relative_to(ROOT)))
    )


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= MOST_README


@pytest.mark.parametrize("page", NARROW)
def test_lines_are_narrow(page: str) -> None:
    lines = SPAN.sub("", LINK.sub("", prose(page))).splitlines()
    assert [line for line in lines if len(line) > MOST_COLUMNS and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    assert [to for to in LINK.findall(prose(page)) if not leads_somewhere(page, to)] == []


def code(page: str) -> Iterator[str]:
    """Every line of code blocks and every span; a line that ends in \\ goes on in the next."""
    text = text_of(page)
    blocks = [*FENCED.findall(text), *INDENTED.findall(FENCED.sub("", text))]
    for block in blocks:
        yield from (line.strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines())
    yield from SPAN.findall(FENCED.sub("", text))


def commands(page: str) -> list[list[str]]:
    """Commands of ours, in words."""
    parts = (words(part) for line in code(page) for part in re.split(r"\s[|>&;]+\s", line))
    return [split for split in parts if is_ours(split)]


def words(text: str) -> list[str]:
    """As a shell splits them, without what stands before the command."""
    try:
        split = shlex.split(text, comments=True)
    except ValueError:  # an apostrophe: prose, or a pattern
        return []
    while split and re.fullmatch(r"[A-Z_]+=.*|time|\$", split[0]):
        split = split[1:]
    return split


def is_ours(split: list[str]) -> bool:
    found = OURS.match(split[0]) if split else None
    if found is None:
        return False
    if found[1].startswith("mtp-"):
        return found[1] in scripts() or len(split) > 1
    rest = " ".join(split[1:])
    return rest.startswith(("-m benchmarks", "benchmarks/"))


@functools.cache
def scripts() -> dict[str, str]:
    """Our entry points and the modules that they start."""
    return {
        e.name: e.module for e in entry_points(group="console_scripts") if e.name.startswith("mtp-")
    }


def command_of(split: list[str]) -> tuple[Any, list[str]]:
    """What a command line runs, and its arguments."""
    found = OURS.match(split[0])
    assert found is not None
    if found[1] == "mtp-chat" and (beside := dispatch.COMMANDS.get(" ".join(split[1:2]))):
        return in_module(beside.module), split[2:]
    if found[1] in scripts():
        return in_module(scripts()[found[1]]), split[1:]
    assert not found[1].startswith("mtp-"), f"there is no command {found[1]}"
    if split[1] == "-m":
        name, rest = split[2], split[3:]
    else:
        name, rest = split[1].removesuffix(".py").replace("/", "."), split[2:]
    package = ROOT / name.replace(".", "/")
    return in_module(f"{name}.__main__" if package.is_dir() else name), rest


@functools.cache
def in_module(name: str) -> Any:
    module = importlib.import_module(name)
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command()(module.main)
    return typer.main.get_command(app)


def unknown(command: Any, arguments: list[str]) -> list[str]:
    """The subcommand or the options among `arguments` that a command does not have."""
    known = {"--help"}
    while isinstance(command, TyperGroup):
        known |= options(command)
        name = next((word for word in arguments if not word.startswith("-")), None)
        if name is None:
            break
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known |= options(command)
    given = (word.partition("=")[0] for word in arguments if re.match("--?[a-z]", word))
    return [option for option in given if option not in known]


def options(command: Any) -> set[str]:
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_and_know_their_options(page: str) -> None:
    found = ((split, *command_of(split)) for split in commands(page))
    assert [split for split, command, arguments in found if unknown(command, arguments)] == []


def test_commands_are_found_and_wrong_ones_refused() -> None:
    assert len(commands("README.md")) > 5
    command, _ = command_of(["mtp-chat"])
    assert unknown(command, ["--exact", "-t", "0", "--nosuch", "-q"]) == ["--nosuch", "-q"]
    command, _ = command_of([".venv/bin/mtp-convert"])
    assert unknown(command, ["grafting", "a.gguf"]) == ["grafting"]
    assert unknown(command, ["graft", "a.gguf", "b", "--limit", "5"]) == ["--limit"]


def test_the_drawing_of_imports_is_the_codes() -> None:
    page = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.redrawn(page) == page, "python -m tests.rooms draws it anew"


def test_an_arrow_that_others_imply_is_left_out() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert rooms.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}
