"""The one compiled part of the package; everything else is in pyproject.toml.

Optional: without a C++ compiler llama.cpp's own kernels and numpy do everything, and on other
processors than x86-64 it has no kernels. It is compiled for the machine it is installed on, as
llama.cpp itself is.
"""

import glob
import runpy
import sys

from setuptools import Extension, setup

DIGEST = runpy.run_path("mtp_cli/engine/native/compiled.py")["sources_digest"]()

setup(
    ext_modules=[
        Extension(
            "mtp_cli.engine.native._compiled",
            sorted(glob.glob("mtp_cli/engine/native/*.cpp")),
            depends=sorted(glob.glob("mtp_cli/engine/native/**/*.h", recursive=True)),
            define_macros=[("MTP_SOURCES", f'"{DIGEST}"')],
            # What one row is added up by must not depend on how many are compiled beside it.
            extra_compile_args=[
                *("-O3", "-march=native", "-ffp-contract=off"),
                *("-std=c++17", "-fno-exceptions", "-fno-rtti", "-w"),
            ],
            optional=True,
        )
    ]
    if sys.platform != "win32"
    else []
)
