"""A plugin of pytest that loads our code as compiled for another processor than this one.

    python -m pytest -p tests.engine.native.compiled_for --compiled-for haswell \\
        tests/engine/native/test_products.py

It is compiled anew, into a folder that the package looks into before its own. ggml stays as it is.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mtp_cli.engine import native
from mtp_cli.engine.native import compiled
from tests.engine.native.building import build


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compiled-for", metavar="PROCESSOR", help="as GCC's -march names it")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before conftest.py loads it."""
    processor = early_config.known_args_namespace.compiled_for
    if processor is None:
        return
    folder = tempfile.TemporaryDirectory()
    early_config.add_cleanup(folder.cleanup)
    library = Path(folder.name, "_compiled.so")
    build(library, compiled.sources(".cpp"), f"-march={processor}")
    native.__path__.insert(0, folder.name)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    library = compiled.load()
    vectors = None if library is None else library.mtp_vectors().decode()
    terminalreporter.write_line(f"compiled for {config.getoption('compiled_for')}: {vectors}")
