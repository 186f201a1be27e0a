"""Opens files as a user would, in this very process, and checks what a refusal looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtp_cli.engine import Engine
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.target_tables import TargetTables, table_places
from mtp_cli.errors import MtpError
from tests.engine.scripted import GREEDY


def refusal(model: Path, heads: Path | None = None, named: Path | None = None) -> str:
    """The one line with which it is refused, without the path it names."""
    with pytest.raises(MtpError) as caught:
        Engine.open(model, heads, n_ctx=64, n_threads=1, n_gpu_layers=0)
    line = str(caught.value)
    assert "\n" not in line
    path = str(named or heads or model)
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def opened_tables(model: Path) -> TargetTables:
    places = table_places(read_shards(model))
    assert places is not None
    return TargetTables(places)


def runs(model: Path) -> bool:
    """It may be refused; if it is not, it runs."""
    try:
        engine = Engine.open(model, n_ctx=64, n_threads=1, n_gpu_layers=0)
    except MtpError as error:
        line = str(error)
    else:
        line = ""
    if line:
        assert "\n" not in line
        assert line.startswith(f"{model}: ")
        return False
    with engine:
        ids = engine.tokenize("the thing", add_special=True, parse_special=True)
        list(engine.generate(ids or [1], GREEDY, max_tokens=8, depth=2))
    return True
