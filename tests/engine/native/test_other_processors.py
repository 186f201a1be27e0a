"""The kernels of every vector width and instruction set, wherever the processor can run them.

Each is compiled, loaded and put through the tests of operators and of the compiled head in a
process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mtp_cli.engine.native import compiled
from tests.engine.native import compiled_for
from tests.engine.native.building import BUILDS, lacking

ROOT = Path(__file__).parents[3]
PRODUCTS = ("tests/engine/native/test_products.py", "tests/engine/native/test_experts.py")
WIDTH = (  # what else depends on the width of vectors
    "tests/engine/native/test_few_rows_attention.py",
    "tests/engine/drafters/test_compiled_head.py",
)
# A wheel's builds. A processor that can run more than these has what it can in a clone's own build.
VECTORS = {
    "v3": ("AVX2", (*PRODUCTS, *WIDTH)),
    "v3_vnni": ("AVX2 with VNNI", (*PRODUCTS, WIDTH[-1])),
    "v4": ("AVX2", PRODUCTS),  # AVX-512 for floats: it has no VNNI
    "v4_vnni": ("AVX-512", PRODUCTS),
}
# The loop and whole models show the same once more, and take long.
LEFT_OUT = ("models", "drafts")


@pytest.mark.skipif(not BUILDS, reason="another processor than x86-64, or no compiler")
@pytest.mark.parametrize("name", VECTORS)
def test_the_kernels_compiled_for(name: str) -> None:
    try:
        lacks = lacking(compiled.BUILDS[name])
    except RuntimeError:
        pytest.skip(f"the compiler does not know {compiled.BUILDS[name]}")
    if lacks:
        pytest.skip(f"this processor has no {', '.join(sorted(lacks))}")
    vectors, tests = VECTORS[name]
    chosen = " and ".join(f"not {word}" for word in LEFT_OUT)
    options = ["-p", compiled_for.__name__, "--compiled-for", name, "-k", chosen]
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
