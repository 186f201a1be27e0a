"""A plugin of pytest that loads another build of our code than the package's own.

    python -m pytest -p tests.engine.native.compiled_for --compiled-for v3 \\
        tests/engine/native/test_products.py

The package looks into the folder of that build before its own. ggml stays as it is.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mtp_cli.engine import native
from mtp_cli.engine.native import compiled
from tests.engine.native.building import build


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compiled-for", metavar="NAME", help="one of compiled.BUILDS")
    parser.addoption("--compiled-in", metavar="FOLDER", help="take _compiled.so from there")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before conftest.py loads it."""
    options = early_config.known_args_namespace
    if options.compiled_for is not None:
        folder = tempfile.TemporaryDirectory()
        early_config.add_cleanup(folder.cleanup)
        library = Path(folder.name, "_compiled.so")
        build(library, compiled.sources(".cpp"), *compiled.BUILDS[options.compiled_for])
        native.__path__.insert(0, folder.name)
    elif options.compiled_in is not None:
        native.__path__.insert(0, options.compiled_in)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    library = compiled.load()
    if library is not None:
        vectors, formats = library.mtp_vectors(), library.mtp_formats()
        terminalreporter.write_line(f"loaded: {vectors.decode()}, {formats.decode()}")
