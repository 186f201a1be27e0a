"""Draws the imports between rooms, as the code has them, into docs/architecture.md.

    python -m tests.rooms

A room is a folder. What every room may import (errors, options, files of shared types) is left
out, and so is an arrow that others imply.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = {
    "mtp_cli": ROOT / "mtp_cli",
    "mtp_convert": ROOT / "convert" / "mtp_convert",
    "mtp_train": ROOT / "train" / "mtp_train",
}
BOXES = {"mtp_cli.engine": "engine", "mtp_convert": "mtp_convert", "mtp_train": "mtp_train"}
LABELS = {"mtp_cli.engine": "engine.py, generate.py", "mtp_train": "generate.py, fit.py, export.py"}
SHARED = (
    *("mtp_cli", "mtp_cli.engine.types", "mtp_cli.engine.tuning", "mtp_cli.engine.stats"),
    "mtp_cli.engine.prefix",
)
COMMAND_LINE = {  # files outside their rooms
    "mtp_convert.cli": "mtp_convert.commands",
    "mtp_train.cli": "mtp_train.commands",
}
START, END = "<!-- imports -->\n", "<!-- /imports -->"


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            found[name] = path
    return found


def room_of(module: str, path: Path) -> str | None:
    """The room that a module is in; None for what all rooms share."""
    if module in COMMAND_LINE:
        return COMMAND_LINE[module]
    room = module if path.name == "__init__.py" else module.rpartition(".")[0]
    is_shared = room in ("mtp_cli", "mtp_convert") or module in SHARED
    return None if is_shared else room


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules among `known` that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in known else node.module for name in whole}
    return found & known.keys()


def arrows() -> dict[str, set[str]]:
    """For each room the rooms that it imports from."""
    known = modules()
    rooms = {module: room_of(module, path) for module, path in known.items()}
    found: dict[str, set[str]] = {room: set() for room in rooms.values() if room}
    for module, path in known.items():
        others = {rooms[other] for other in imported(path, known)}
        if own := rooms[module]:
            found[own] |= {room for room in others if room and room != own}
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that others imply. Raises graphlib.CycleError where one goes back."""
    below: dict[str, set[str]] = {}
    for room in TopologicalSorter(graph).static_order():
        below[room] = graph[room].union(*(below[other] for other in graph[room]))
    return {
        room: {other for other in others if not any(other in below[o] for o in others)}
        for room, others in graph.items()
    }


def drawing() -> str:
    """A Mermaid flowchart."""
    graph = reduced(arrows())
    inside = {room: box for room in graph for box in BOXES if f"{room}.".startswith(f"{box}.")}
    lines = ["```mermaid", "flowchart TB"]
    lines += [f"    {_node(room)}" for room in sorted(graph) if room not in inside]
    for box, title in BOXES.items():
        nodes = (f"        {_node(room)}" for room in sorted(graph) if inside.get(room) == box)
        lines += [f"    subgraph box_{title} [{title}]", *nodes, "    end"]
    for room, others in sorted(graph.items()):
        lines += [f"    {_id(room)} --> {_id(other)}" for other in sorted(others)]
    return "\n".join([*lines, "```"]) + "\n"


def _node(room: str) -> str:
    return f'{_id(room)}["{LABELS.get(room, room.rpartition(".")[2])}"]'


def _id(room: str) -> str:
    return room.replace(".", "_")


def redrawn(page: str) -> str:
    """The page with its drawing made anew."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{drawing()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
