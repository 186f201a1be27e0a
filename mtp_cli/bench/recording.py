"""The one form in which a benchmark writes what it measured, and what its numbers hold for.

Owns the facts that every result begins with, and the file. Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mtp_cli
from mtp_cli.bench.weights import Weights
from mtp_cli.engine.backend import our_kernels
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from mtp_cli.whole_file import write_whole

SCHEMA = 2
"""Raised when a key changes its meaning or goes; 1 had a host's name."""
_ROOT = Path(mtp_cli.__file__).parents[1]
_WRITTEN_UP = ("benchmarks/results", "docs", "*.md")  # what changes no measurement
_LINE = 320  # columns that an item may have on a line of its own
_DIGITS = 6  # significant; what a clock says beyond them is noise


def provenance(
    benchmark: str,
    program: str,
    n_threads: int,
    files: ModelFiles | None = None,
    *,
    quick: bool = False,
) -> dict[str, Any]:
    """What a result begins with.

    benchmark: its name; program: how it is called, without arguments (`sys.argv` has those)
    n_threads: cores that were used; files: what was measured, None where no model was
    quick:     whether it was a first look, of fewer repetitions than a number for a document
    """
    return {
        "schema": SCHEMA,
        "benchmark": benchmark,
        "date": date.today().isoformat(),
        "commit": commit(_ROOT),
        "machine": machine(n_threads),
        "llama_cpp_python": version("llama-cpp-python"),
        "model": None if files is None else described(files.model),
        "heads": None if files is None or files.heads is None else described(files.heads),
        "draft_model": None
        if files is None or files.draft_model is None
        else described(files.draft_model),
        "command": command_line(program, sys.argv[1:]),
        "quick": quick,
    }


def machine(n_threads: int) -> dict[str, Any]:
    """vectors: what our kernels use, None where llama.cpp's do everything."""
    return {"processor": processor(), "cores": n_threads, "vectors": our_kernels.install()}


def processor() -> str:
    """The processor's model as its maker calls it, as far as the system tells."""
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit(root: Path) -> str:
    """The short commit a folder is at, `-dirty` when what is measured was changed since; the
    package's version where there is none."""
    found = git(root, "rev-parse", "--short", "HEAD")
    if found is None:
        return version("mtp-cli")
    kept = [f":(exclude){pattern}" for pattern in _WRITTEN_UP]
    return f"{found}-dirty" if git(root, "status", "--porcelain", "--", ".", *kept) else found


def git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where the folder is no repository of its own, or git fails."""
    if not (root / ".git").exists():  # what lies in somebody else's repository has no commit here
        return None
    try:
        done = subprocess.run(
            ["git", "-C", root, *arguments],
            capture_output=True, text=True, check=True, env=folders_own(os.environ),
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def folders_own(environment: Mapping[str, str]) -> dict[str, str]:
    """Without GIT_DIR and the like, which in a hook or a rebase name another repository."""
    return {name: value for name, value in environment.items() if not name.startswith("GIT_")}


def described(path: Path) -> dict[str, Any]:
    """A GGUF's name, the format that most of its bytes are in, its size, and the share of its
    weights' bytes that our kernels take."""
    weights = Weights.of(path)
    ours_share = weights.share(our_kernels.formats())
    return {
        "file": path.name,
        "format": weights.format,
        "bytes": weights.n_file_bytes,
        "ours_share": ours_share,
    }


def command_line(program: str, arguments: Sequence[str]) -> str:
    """As a reader would type it: of files only their names."""
    return " ".join([program, *(shlex.quote(_without_folder(one)) for one in arguments)])


def _without_folder(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument[:2] == "--" else ("", "", argument)
    return f"{option}{equals}{Path(value).name if os.sep in value else value}"


def write(path: Path, content: dict[str, Any]) -> None:
    """By rename, so that an older file is whole until this one is."""
    try:
        write_whole(path, laid_out(_rounded(content)) + "\n", is_durable=False)
        path.chmod(0o644)  # a temporary file is its owner's alone
    except OSError as error:
        raise MtpError(f"{path}: cannot be written: {error.strerror}") from None


def laid_out(value: Any, depth: int = 0) -> str:
    """JSON in lines that a diff can be read in: what is short has one, what is long several."""
    flat = json.dumps(value)
    if (depth > 0 and len(flat) <= _LINE) or not isinstance(value, dict | list):
        return flat
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {laid_out(one, depth + 1)}" for key, one in value.items()]
    else:
        items = [laid_out(one, depth + 1) for one in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    pad = "\n" + " " * depth
    return start + pad + " " + f",{pad} ".join(items) + pad + end


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
