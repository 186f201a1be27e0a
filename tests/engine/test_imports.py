"""What needs no llama.cpp is imported without it, and no room imports one that comes after it.

Each module is imported in a process of its own in which `llama_cpp` cannot be.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mtp_cli

PACKAGE = Path(mtp_cli.__file__).parent
NEED_NOTHING = (
    *("types", "tuning", "stats", "prefix", "saved_file", "kept_prompts", "keeping"),
    "generate",
    "native.compiled",
    *("depth.exactness", "depth.learning", "depth.remembered", "depth.worth"),
    *("depth.automatic", "depth.calibrate", "depth.cost", "depth.policy", "depth.survival"),
    *("drafters.base", "drafters.forced", "drafters.independent", "drafters.mtp"),
    *("drafters.ngram", "drafters.shared_kv"),
    *("grammar.constrained", "grammar.constraint", "grammar.source", "grammar.vocabulary"),
    *("sampling.candidates", "sampling.logprobs", "sampling.penalties", "sampling.proposals"),
    *("sampling.dry", "sampling.sampler"),
    *("sampling.settings", "sampling.truncation", "sampling.verify"),
)
# In the order of the flow: a room imports only from itself and from rooms before it.
ROOMS = (
    *("types", "tuning", "stats", "prefix", "saved_file", "kept_prompts", "native", "grammar"),
    *("sampling", "backend", "files"),
    *("drafters", "depth"),
)
LAST = ("generate", "timeline", "keeping", "engine")


def run(code: str) -> subprocess.CompletedProcess[str]:
    blocked = "import sys; sys.modules['llama_cpp'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", NEED_NOTHING)
def test_a_module_that_needs_no_llama_cpp(module: str) -> None:
    done = run(f"import mtp_cli.engine.{module}")
    assert done.returncode == 0, done.stderr


def test_the_engine_itself_says_what_is_missing() -> None:
    done = run("import mtp_cli.engine as engine\nengine.Engine")
    assert done.returncode == 1
    assert "llama-cpp-python" in done.stderr.splitlines()[-1]


def room_of(module: str) -> str | None:
    """The room, or the file beside the rooms, that a module of the engine lies in."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["mtp_cli", "engine"] and len(parts) > 2 else None


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_no_arrow_between_rooms_goes_back() -> None:
    order = (*ROOMS, *LAST)
    for path in sorted((PACKAGE / "engine").rglob("*.py")):
        own = path.relative_to(PACKAGE / "engine").with_suffix("").parts[0]
        if own == "__init__":
            continue
        rooms = {room for room in map(room_of, imported(path)) if room is not None}
        back = {room for room in rooms if order.index(room) > order.index(own)}
        assert not back, f"{path.name} imports {back}"


def test_nothing_of_the_engine_imports_what_uses_it() -> None:
    for path in (PACKAGE / "engine").rglob("*.py"):
        users = {f"mtp_cli.{user}" for user in ("bench", "chat", "conversation", "models")}
        assert not {m for m in imported(path) for user in users if m.startswith(user)}, path
