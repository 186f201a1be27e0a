"""The one compiled part of the package; everything else is in pyproject.toml.

Optional: without a C++ compiler llama.cpp's own kernels and numpy do everything, and on other
processors than x86-64 it has no kernels. In a clone it is compiled for the machine at hand, as
llama.cpp itself is; a wheel holds one build for each kind of x86-64 processor, and the best that
runs is chosen when it is loaded.
"""

import os
import platform
import runpy
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = runpy.run_path("mtp_cli/engine/native/compiled.py")
IS_X86_64 = platform.machine() in ("x86_64", "AMD64")


def sources(suffix: str) -> list[str]:
    return [os.path.relpath(path) for path in COMPILED["sources"](suffix)]


def compiled(name: str, *options: str) -> Extension:
    return Extension(
        f"mtp_cli.engine.native.{name}",
        sources(".cpp"),
        depends=[*sources(".h"), *sources(".c")],
        define_macros=[("MTP_SOURCES", f'"{COMPILED["sources_digest"]()}"')],
        extra_compile_args=[*COMPILED["OPTIONS"], *options],
        optional=True,
    )


def for_this_machine() -> list[Extension]:
    return [compiled("_compiled", "-march=native")]


def for_any_machine() -> list[Extension]:
    if not IS_X86_64:
        return [compiled("_compiled")]
    chooser = Extension("mtp_cli.engine.native._processor", sources(".c"), optional=True)
    builds = COMPILED["BUILDS"].items()
    return [chooser, *(compiled(f"_compiled_{name}", *flags, "-g0") for name, flags in builds)]


class Build(build_ext):
    """Knows, when it runs, whether the result stays in this folder."""

    def run(self) -> None:
        if not (self.inplace or self.editable_mode):
            self.distribution.ext_modules = for_any_machine()
            self.initialize_options()  # again, with these
            self.parallel = os.cpu_count()
            self.finalize_options()
        super().run()


setup(
    cmdclass={"build_ext": Build},
    ext_modules=for_this_machine() if sys.platform != "win32" else [],
)
