"""Compiles llama-cpp-python for one kind of NVIDIA card, where no card and no driver need be.

Owns the flags and a folder of links that CMake takes for a CUDA toolkit: cuBLAS often is not in the
compiler's own folder, and comes from PyPI then. What was compiled before stays, so that the same
command goes on where it was stopped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peer.build import fetch
from mtp_cli.engine.backend.binding import PINNED
from mtp_cli.errors import MtpError

_CMAKE = (
    "-DGGML_CUDA=ON",
    "-DGGML_CUDA_NO_VMM=ON",  # else it links the driver's library, which is not here
    "-DGGML_CUDA_NCCL=OFF",  # one card
    "-DGGML_NATIVE=OFF",  # another processor than this one: AVX2, as every machine with such a card
    "-DLLAVA_BUILD=OFF",  # images
)


def wheel(work: Path, sdist: Path | None, architecture: str, jobs: int) -> Path:
    """The wheel, in `work`; an hour and more on two cores the first time."""
    wheels = work / "wheels"
    found = _wheel_in(wheels)
    if found is not None:
        return found
    linked, source = toolkit(work), _source(work, sdist)
    compiler = linked / "bin" / "nvcc"
    flags = [
        *_CMAKE,
        f"-DCMAKE_CUDA_ARCHITECTURES={architecture}-real",
        f"-DCMAKE_CUDA_COMPILER={compiler}",
        f"-DCUDAToolkit_ROOT={linked}",
    ]
    environment = {
        **os.environ,
        "CMAKE_ARGS": " ".join(flags),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
        "CUDACXX": str(compiler),
        "CUDAToolkit_ROOT": str(linked),
    }
    pip("wheel", "--no-deps", "--wheel-dir", str(wheels), "-C", f"build-dir={work / 'build'}",
        "-v", str(source), environment=environment)  # fmt: skip
    found = _wheel_in(wheels)
    assert found is not None
    return found


def _wheel_in(folder: Path) -> Path | None:
    return next(folder.glob(f"llama_cpp_python-{PINNED}-*.whl"), None)


def _source(work: Path, sdist: Path | None) -> Path:
    there = work / f"llama_cpp_python-{PINNED}"
    return there if there.is_dir() else fetch(work, sdist)


def toolkit(work: Path) -> Path:
    """A folder of links to the compiler's own, with cuBLAS in it."""
    linked = work / "toolkit"
    if linked.is_dir():
        return linked
    own = _installed()
    parts = [own] if (own / "include" / "cublas_v2.h").exists() else [own, _cublas(work, own)]
    making = work / "toolkit.new"
    shutil.rmtree(making, ignore_errors=True)
    for folder in ("include", "lib64"):
        (making / folder).mkdir(parents=True)
    for entry in own.iterdir():
        if entry.name not in ("include", "lib", "lib64"):
            (making / entry.name).symlink_to(entry.resolve())
    for part in parts:
        _link(part / "include", making / "include")
        _link(part / "lib64" if (part / "lib64").is_dir() else part / "lib", making / "lib64")
    making.rename(linked)
    return linked


def _link(source: Path, into: Path) -> None:
    """Links to each entry, and a name without its version for each library that has none."""
    for entry in source.iterdir():
        (into / entry.name).symlink_to(entry.resolve())
    for library in list(into.glob("lib*.so.*")):
        plain = library.with_name(library.name.split(".so.")[0] + ".so")
        if not plain.exists():
            plain.symlink_to(library.name)


def _installed() -> Path:
    """The CUDA toolkit of this machine, or its compiler alone."""
    for root in _roots():
        if (root / "bin" / "nvcc").exists() and (root / "include" / "cuda_runtime.h").exists():
            return root.resolve()
    raise MtpError("no CUDA compiler here: put nvcc on the path, or name its folder in CUDA_HOME")


def _roots() -> Iterator[Path]:
    if "CUDA_HOME" in os.environ:
        yield Path(os.environ["CUDA_HOME"])
    compiler = shutil.which("nvcc")
    if compiler is not None:
        yield Path(compiler).resolve().parents[1]
    yield Path("/usr/local/cuda")


def cuda_version(root: Path) -> str:
    """As "13.0", of the toolkit in a folder."""
    said = subprocess.run(
        [str(root / "bin" / "nvcc"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"release (\d+\.\d+)", said)
    if found is None:
        raise MtpError(f"{root}: nvcc does not say its version")
    return found[1]


def _cublas(work: Path, own: Path) -> Path:
    """The folder of headers and libraries of PyPI's package."""
    version = cuda_version(own)
    if int(version.split(".")[0]) < 13:
        raise MtpError(f"{own}: has no cuBLAS; install it there, or a toolkit of CUDA 13 or later")
    into = work / "cublas"
    pip("install", "--no-deps", "--target", str(into), f"nvidia-cublas=={version}.*")
    header = next(into.rglob("cublas_v2.h"), None)
    if header is None:
        raise MtpError(f"{into}: nvidia-cublas brought no headers")
    return header.parents[1]


def runtime(work: Path) -> list[Path]:
    """CUDA's own small library that the build needs where it runs; cuBLAS is there already."""
    return sorted((work / "toolkit" / "lib64").glob("libcudart.so.*"))


def pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    print("+ pip", *arguments, file=sys.stderr)
    code = subprocess.run(command, stdout=sys.stderr, env=environment, check=False).returncode
    if code != 0:
        raise MtpError(f"pip {arguments[0]} ended with status {code}; the same command goes on")
