"""A package as a wheel holds it: several builds, of which the best that runs here is loaded."""

from __future__ import annotations

import ctypes
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import mtp_cli
from mtp_cli.engine.native import compiled
from tests.engine.native.building import BUILDS, COMPILER, build, instructions, lacking

pytestmark = pytest.mark.skipif(
    not BUILDS or bool(lacking(compiled.BUILDS["v3"])), reason="no AVX2, or no compiler"
)
ASK = (
    "from mtp_cli.engine.backend import our_kernels\n"
    "from mtp_cli.engine.native import compiled\n"
    "library = compiled.load()\n"
    "print(library and library._name.rpartition('/')[2], our_kernels.install())\n"
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package without what it was compiled to here; its compiled parts' folder."""
    without = shutil.ignore_patterns("_compiled*", "__pycache__", "*.gguf")
    shutil.copytree(Path(mtp_cli.__file__).parent, tmp_path / "mtp_cli", ignore=without)
    return tmp_path / "mtp_cli/engine/native"


def loaded(native: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=native.parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def compile_c(library: Path, *sources: Path) -> None:
    assert COMPILER is not None
    subprocess.run([COMPILER, "-x", "c", "-shared", "-fPIC", "-o", library, *sources], check=True)


def add_build(native: Path, name: str, options: Sequence[str]) -> None:
    built = native / "built"
    built.mkdir()
    build(built / "_compiled.so", compiled.sources(".cpp"), *options)
    shutil.move(built / "_compiled.so", native / f"_compiled_{name}.so")


def test_the_best_build_that_is_there_and_runs_is_loaded(package: Path) -> None:
    assert loaded(package) == "None None"
    add_build(package, "v3", compiled.BUILDS["v3"])
    assert loaded(package) == "None None"  # nothing says what the processor can run
    compile_c(package / "_processor.so", package / "processor.c")
    assert loaded(package) == "_compiled_v3.so AVX2"


def test_what_cannot_run_is_not_loaded(package: Path, tmp_path: Path) -> None:
    """A processor that has AVX-512 and no more, by what it says of itself."""
    says = tmp_path / "says.c"
    says.write_text('const char * mtp_processor(void) { return "v4 v3"; }')
    compile_c(package / "_processor.so", says)
    for name in ("v4_vnni", "v4_bf16"):
        (package / f"_compiled_{name}.so").write_bytes(b"no library at all")
    assert loaded(package) == "None None"
    says.write_text('const char * mtp_processor(void) { return ""; }')
    compile_c(package / "_processor.so", says)
    (package / "_compiled_v3.so").write_bytes(b"no library at all")
    assert loaded(package) == "None None"


NAMED = [
    names.split()
    for names in re.findall(r'"(v\d[ \w]*)"', (compiled.FOLDER / "processor.c").read_text())
]


@pytest.mark.parametrize("names", NAMED, ids=" ".join)
def test_each_build_needs_what_the_next_one_needs_and_more(names: list[str]) -> None:
    needed = [instructions(compiled.BUILDS[name]) for name in names]
    assert all(more > less for more, less in itertools.pairwise(needed))


def test_the_processor_names_every_build() -> None:
    assert set(compiled.BUILDS) == {name for names in NAMED for name in names}


def test_it_names_what_runs_here(package: Path) -> None:
    """By the compiler, which knows of every instruction whether this processor has it."""
    compile_c(package / "_processor.so", package / "processor.c")
    ask = ctypes.CDLL(str(package / "_processor.so")).mtp_processor
    ask.restype = ctypes.c_char_p
    named = ask().decode().split()
    assert named
    assert not any(lacking(compiled.BUILDS[name]) for name in named)
