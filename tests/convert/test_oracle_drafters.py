"""Drafters against llama.cpp's own converter; opt-in as `test_oracle.py`, with what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert import checkpoints_dflash, checkpoints_eagle3
from tests.convert.checkpoints import Tiny, write_checkpoint
from tests.convert.test_oracle import OUTTYPES, SCRIPT, compare_tensors, metadata

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

BUILDERS: dict[str, Callable[[], Tiny]] = {
    **{f"eagle3-{name}": build for name, build in checkpoints_eagle3.BUILDERS.items()},
    **{f"dflash-{name}": build for name, build in checkpoints_dflash.BUILDERS.items()},
}
# It does not read this layout of DFlash, only the same one of DSpark.
UNREAD = ("dflash-nested",)
# It drops this output, and its runtime then takes the embedding for it.
DROPPED = {"dflash-pairs": "output.weight"}
# It leaves out the target's ids without a text, which count in the target's matrices.
UNPADDED = ("dflash-muse",)
# It takes the paper's layers though others are named in `eagle_config`.
UNHEARD = {"eagle3-specforge": ("eagle3.target_layers", [2, 3, 4], [2, 2, 2])}
TOKENS = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its own converter takes all tokenizers from one of this class."""
    tiny = checkpoints_eagle3.target()
    tiny.config["architectures"] = ["Qwen2ForCausalLM"]
    return write_checkpoint(tmp_path_factory.mktemp("drafters") / "target", tiny)


def theirs(folder: Path, target: Path, out: Path) -> None:
    """All outtypes in one run, most of which is imports."""
    tree = os.environ.get("MTP_LLAMA_CPP")
    assert tree, "MTP_LLAMA_CPP must name llama.cpp's source tree"
    command = [sys.executable, str(SCRIPT), tree, "qwen2", "raw", str(folder), str(out), *OUTTYPES]
    named = {**os.environ, "MTP_TARGET": str(target)}
    done = subprocess.run(command, capture_output=True, text=True, env=named)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("layout", [name for name in BUILDERS if name not in UNREAD])
def test_the_same_file(layout: str, target: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / layout, BUILDERS[layout](), tokenizer=False)
    theirs(folder, target, tmp_path / "theirs-{}.gguf")
    for outtype in OUTTYPES:
        options = Options(outtype=outtype, pre="qwen2", target=target)
        out, other = tmp_path / f"ours-{outtype}.gguf", tmp_path / f"theirs-{outtype}.gguf"
        write(plan_checkpoint(open_checkpoint(folder), options), out)
        ours, wanted = metadata(out), metadata(other)
        readers = GGUFReader(out), GGUFReader(other)
        if layout in DROPPED:
            tensors = [t for t in readers[0].tensors if t.name != DROPPED[layout]]
            assert len(tensors) == len(readers[0].tensors) - 1
            readers[0].tensors = tensors
            del ours["general.size_label"], wanted["general.size_label"]
        if layout in UNPADDED:
            _cut(ours, wanted)
        if layout in UNHEARD:
            key, *layers = UNHEARD[layout]
            assert [ours.pop(key)[1], wanted.pop(key)[1]] == layers
        compare_tensors(*readers)
        assert ours == wanted


def _cut(ours: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in TOKENS:
        kinds, values = ours[key]
        n = len(wanted[key][1])
        assert n < len(values)
        ours[key] = kinds, values[:n]
