"""Compiles our code apart from the package: for other processors, from other sources."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mtp_cli.engine.native import compiled

COMPILER = shutil.which(os.environ.get("CXX", "c++"))
BUILDS = COMPILER is not None and platform.machine() in ("x86_64", "AMD64")
_INSTRUCTIONS = re.compile(r"#define __((?:AVX|SSE|FMA|F16C|BMI|LZCNT|MOVBE|POPCNT)\w*?)__ 1")


def build(library: Path, sources: Sequence[Path], *options: str) -> None:
    """Compile sources into a shared library, with the package's own options and these.

    Raises RuntimeError with what the compiler says.
    """
    assert COMPILER is not None
    made = [library.with_name(f"{source.stem}.o") for source in sources]
    named = f'-DMTP_SOURCES="{compiled.sources_digest()}"'
    common = [COMPILER, *compiled.OPTIONS, *options, named, "-fPIC"]
    _run([[*common, "-c", s, "-o", o] for s, o in zip(sources, made, strict=True)])
    _run([[COMPILER, "-shared", "-o", library, *made]])


def lacking(options: Sequence[str]) -> set[str]:
    """The instructions that code compiled with `options` may use, and this processor lacks.

    Raises RuntimeError where the compiler does not know them.
    """
    return instructions(options) - instructions(["-march=native"])


def instructions(options: Sequence[str]) -> set[str]:
    """Those that code compiled with `options` may use, by the compiler's names."""
    assert COMPILER is not None
    command = [COMPILER, *options, "-dM", "-E", "-x", "c++", os.devnull]
    (text,) = _run([command])
    return set(_INSTRUCTIONS.findall(text))


def _run(commands: Sequence[Sequence[str | Path]]) -> list[str]:
    """What the commands print, all run at a time."""
    pipe = subprocess.PIPE
    running = [subprocess.Popen(c, stdout=pipe, stderr=pipe, text=True) for c in commands]
    done = [(process, *process.communicate()) for process in running]
    for process, _, errors in done:
        if process.returncode != 0:
            raise RuntimeError(errors)
    return [printed for _, printed, _ in done]
