"""A format is one header and one row: docs/add-a-format.md, followed, takes products."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_cli.engine.native.compiled import FOLDER
from tests.engine.native import compiled_for
from tests.engine.native.building import BUILDS, build

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "add-a-format.md"
HEADER, TABLE = Path("formats", "q4_1.h"), Path("formats", "table.h")
A_ROW = re.compile(r"^    \{abi::.*\n", re.MULTILINE)
AN_INCLUDE = re.compile(r'^#include "\w+\.h"\n', re.MULTILINE)


def shown() -> list[str]:
    """What the docs show: the header, the line that includes it, the row."""
    return re.findall(r"```cpp\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_docs_show_what_the_sources_say() -> None:
    header, include, row = shown()
    assert (FOLDER / HEADER).read_text() == header
    assert include in (FOLDER / TABLE).read_text()
    assert row in (FOLDER / TABLE).read_text()


@pytest.mark.skipif(not BUILDS, reason="another processor than x86-64, or no compiler")
def test_a_header_and_a_row_are_all_that_a_format_needs(tmp_path: Path) -> None:
    """Followed in sources that have no format at all."""
    native = tmp_path / "native"
    shutil.copytree(FOLDER, native, ignore=shutil.ignore_patterns("*.so", "*.py", "__pycache__"))
    header, include, row = shown()
    (native / HEADER).unlink()
    table = (native / TABLE).read_text()
    assert len(A_ROW.findall(table)) > 1
    first_include, first_row = AN_INCLUDE.search(table), A_ROW.search(table)
    assert first_include is not None
    assert first_row is not None
    table = table.replace(first_row[0], "@row\n", 1).replace(first_include[0], "@include\n", 1)
    table = AN_INCLUDE.sub("", A_ROW.sub("", table))

    (native / HEADER).write_text(header)
    (native / TABLE).write_text(table.replace("@include\n", include).replace("@row\n", row))

    build(tmp_path / "_compiled.so", sorted(native.glob("*.cpp")), "-march=native")
    tests = str(Path(__file__).with_name("test_products.py"))
    options = ["-p", compiled_for.__name__, "--compiled-in", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^loaded: .*, q4_1$", done.stdout, re.MULTILINE)
