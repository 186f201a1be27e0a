"""The one compiled part of the package; everything else is in pyproject.toml.

Optional: without a C++ compiler llama.cpp's own kernels and numpy do everything, and on other
processors than x86-64 it has no kernels. It is compiled for the machine it is installed on, as
llama.cpp itself is.
"""

import os
import runpy
import sys

from setuptools import Extension, setup

COMPILED = runpy.run_path("mtp_cli/engine/native/compiled.py")


def sources(suffix: str) -> list[str]:
    return [os.path.relpath(path) for path in COMPILED["sources"](suffix)]


setup(
    ext_modules=[
        Extension(
            "mtp_cli.engine.native._compiled",
            sources(".cpp"),
            depends=sources(".h"),
            define_macros=[("MTP_SOURCES", f'"{COMPILED["sources_digest"]()}"')],
            extra_compile_args=[*COMPILED["OPTIONS"], "-march=native"],
            optional=True,
        )
    ]
    if sys.platform != "win32"
    else []
)
