"""Builds llama-server from the source that llama-cpp-python's sdist carries.

Owns the source and the flags. They are the wheel's own: the same CMakeLists.txt is configured, the
way pip's build of the wheel does (Release, CMAKE_ARGS from the environment), with the server
switched on and what it does not need switched off. Knows nothing of running it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mtp_cli.engine.backend.binding import PINNED
from mtp_cli.errors import MtpError

PROJECT = f"llama-cpp-python=={PINNED}"
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",  # scikit-build-core's default
    "-DLLAVA_BUILD=OFF",  # the tools bring their own copy of this target
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # nothing is downloaded
    "-DLLAMA_TOOLS_INSTALL=OFF",
)
# What of the configuration is recorded with the results.
_RECORDED = (
    "CMAKE_BUILD_TYPE", "CMAKE_CXX_COMPILER", "GGML_NATIVE", "GGML_OPENMP", "GGML_CPU_REPACK",
    "GGML_LLAMAFILE", "GGML_CUDA", "GGML_METAL", "GGML_VULKAN",
)  # fmt: skip


def binary(folder: Path) -> Path:
    return folder / "build" / "bin" / "llama-server"


def fetch(folder: Path, sdist: Path | None) -> Path:
    """The unpacked source; downloaded by pip unless a .tar.gz or a folder is given."""
    if sdist is not None and sdist.is_dir():
        return _checked(sdist)
    if sdist is None:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
        _run([*command, "--dest", str(folder), PROJECT])
        sdist = next(folder.glob("llama_cpp_python-*.tar.gz"), None)
    if sdist is None or not sdist.exists():
        raise MtpError(f"{sdist or folder}: no sdist of {PROJECT} here")
    shutil.unpack_archive(sdist, folder, filter="data")
    return _checked(folder / sdist.name.removesuffix(".tar.gz"))


def _checked(source: Path) -> Path:
    if not (source / "vendor" / "llama.cpp" / "tools" / "server").is_dir():
        raise MtpError(f"{source}: no source of llama-cpp-python with its llama.cpp")
    return source.absolute()


def configure_command(source: Path, folder: Path, extra: str) -> list[str]:
    """cmake's command line; extra: what CMAKE_ARGS has, as for the wheel."""
    build = folder.absolute() / "build"
    command = ["cmake", "-S", str(source), "-B", str(build)]
    if shutil.which("ninja"):
        command += ["-G", "Ninja"]
    # The libraries look for each other in their own folder.
    outputs = [
        f"-DCMAKE_{kind}_OUTPUT_DIRECTORY={build / 'bin'}" for kind in ("LIBRARY", "RUNTIME")
    ]
    return [*command, *FLAGS, *outputs, *shlex.split(extra)]


def build(source: Path, folder: Path, jobs: int) -> Path:
    """Configure and compile; the binary's path."""
    if shutil.which("cmake") is None:
        raise MtpError("cmake is needed to build llama-server: pip install cmake ninja")
    _run(configure_command(source, folder, os.environ.get("CMAKE_ARGS", "")))
    target = ["--target", "llama-server", "--config", "Release"]
    _run(["cmake", "--build", str(folder / "build"), "-j", str(jobs), *target])
    return binary(folder)


def _run(command: Sequence[str]) -> None:
    print("+", shlex.join(command), file=sys.stderr)
    try:
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    except OSError as error:
        raise MtpError(f"{command[0]}: {error.strerror}") from None
    if code != 0:
        raise MtpError(f"{command[0]} ended with status {code}: {shlex.join(command)}")


def configuration(server: Path) -> dict[str, str]:
    """How a server was compiled, as far as its CMakeCache.txt lies where `build` puts it."""
    cache = server.parent.parent / "CMakeCache.txt"
    if not cache.exists():
        return {}
    entries = (line.partition("=") for line in cache.read_text().splitlines() if ":" in line)
    values = {name.split(":")[0]: value for name, _, value in entries}
    return {name: values[name] for name in _RECORDED if name in values}
