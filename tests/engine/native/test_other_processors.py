"""The kernels of every vector width and instruction set, wherever the processor can run them.

Each is compiled, loaded and put through the tests of operators and of the compiled head in a
process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.native import compiled_for
from tests.engine.native.building import BUILDS, lacking

ROOT = Path(__file__).parents[3]
PRODUCTS = ("tests/engine/native/test_products.py", "tests/engine/native/test_experts.py")
WIDTH = (  # what else depends on the width of vectors
    "tests/engine/native/test_few_rows_attention.py",
    "tests/engine/drafters/test_compiled_head.py",
)
# By GCC's names for the first processors that have these instructions. A processor that can run
# more than these has what it can in the package's own build.
PROCESSORS = {
    "haswell": ("AVX2", (*PRODUCTS, *WIDTH)),
    "skylake-avx512": ("AVX2", PRODUCTS),  # AVX-512 for floats: it has no VNNI
    "cascadelake": ("AVX-512", PRODUCTS),
}
# The loop and whole models show the same once more, and take long.
LEFT_OUT = ("models", "drafts")


@pytest.mark.skipif(not BUILDS, reason="another processor than x86-64, or no compiler")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_kernels_compiled_for(processor: str) -> None:
    try:
        lacks = lacking(processor)
    except RuntimeError:
        pytest.skip(f"the compiler does not know {processor}")
    if lacks:
        pytest.skip(f"this processor has no {', '.join(sorted(lacks))}")
    vectors, tests = PROCESSORS[processor]
    chosen = " and ".join(f"not {word}" for word in LEFT_OUT)
    options = ["-p", compiled_for.__name__, "--compiled-for", processor, "-k", chosen]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"\nloaded: {vectors}, " in done.stdout
    assert " passed" in done.stdout
