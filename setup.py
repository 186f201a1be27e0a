"""The one compiled part of the package; everything else is in pyproject.toml.

Optional: without a C++ compiler, or on other processors, llama.cpp's own kernels do everything. It
is compiled for the machine it is installed on, as llama.cpp itself is.
"""

import glob
import platform
import sys

from setuptools import Extension, setup

_HAS_KERNELS = platform.machine().lower() in ("x86_64", "amd64") and sys.platform != "win32"

setup(
    ext_modules=[
        Extension(
            "mtp_cli.engine._few_rows",
            ["mtp_cli/engine/native/few_rows.cpp"],
            depends=sorted(glob.glob("mtp_cli/engine/native/*.h")),
            # What one row is added up by must not depend on how many are compiled beside it.
            extra_compile_args=[
                *("-O3", "-march=native", "-ffp-contract=off"),
                *("-std=c++17", "-fno-exceptions", "-fno-rtti", "-w"),
            ],
            optional=True,
        )
    ]
    if _HAS_KERNELS
    else []
)
