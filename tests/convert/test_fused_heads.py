"""Heads that fuse rows of several layers, in every command that takes a head file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from mtp_cli import head_file
from mtp_cli.errors import MtpError
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.commands.pack import plan_pack
from mtp_convert.commands.trial import try_heads
from mtp_convert.commands.trim import count_ids, plan_trim
from mtp_convert.gguf.reuse import Wanted
from mtp_convert.gguf.write import write
from tests.engine import tiny

TARGET = tiny.llama(n_blocks=4)
LAYERS = (1, 3)


def heads_spec() -> tiny.Spec:
    return tiny.fused_heads_for(TARGET, LAYERS, prompt_rows=30)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return TARGET.write(tmp_path / "target.gguf")


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    return heads_spec().quantized(GGMLQuantizationType.Q8_0).write(tmp_path / "heads.gguf")


def test_inspect_says_what_it_reads(heads: Path) -> None:
    lines = [*inspect_lines(heads)]
    assert "for: tiny, width 64, vocabulary 258, layers" in lines
    assert "reads: the rows of layers 1, 3, fused; 30 of a prompt" in lines


def test_check_drafts_with_it(target: Path, heads: Path) -> None:
    tried = try_heads(target, heads, n_tokens=12)
    assert tried.drafter == "heads.gguf, 1 head, rows of 2 layers"
    assert tried.verified[0] > 0
    assert tried.n_differing == 0


def test_pack_refuses_what_llama_cpp_cannot_run(target: Path, heads: Path) -> None:
    with pytest.raises(MtpError) as caught:
        plan_pack(target, heads)
    assert str(caught.value) == (
        f"{heads}: fuses rows of several layers, which llama.cpp gives no head; it runs in "
        "mtp-chat, beside its target"
    )


@pytest.mark.parametrize("outtype", [None, "q4_k"])
def test_trim_leaves_the_fusion_as_it_is(
    outtype: str | None, target: Path, heads: Path, tmp_path: Path
) -> None:
    counts = count_ids([tiny.random_ids(500)], tiny.N_VOCAB)
    out = tmp_path / "trimmed.gguf"
    write(plan_trim(heads, target, counts, 100, [tiny.EOS], Wanted(outtype, outtype)).plan, out)
    before, after = (
        {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(path).tensors}
        for path in (heads, out)
    )
    for name in (head_file.FUSE_NORM, head_file.FUSE):
        assert after[name] == before[name]
    assert try_heads(target, out, n_tokens=8).n_differing == 0


def _without(name: str) -> tiny.Spec:
    spec = heads_spec()
    del spec.tensors[name]
    return spec


def _narrower() -> tiny.Spec:
    spec = heads_spec()
    spec.tensors[head_file.FUSE] = spec.tensors[head_file.FUSE][:, 1:]
    return spec


def _not_asked_for() -> tiny.Spec:
    spec = tiny.heads_for(TARGET, hidden="pre_norm")
    spec.tensors[head_file.FUSE_NORM] = np.ones(128, np.float32)
    return spec


REFUSED: dict[str, tuple[Callable[[], tiny.Spec], str]] = {
    "no fusion": (
        lambda: _without(head_file.FUSE),
        "mtp.fuse.weight is missing, which mtp.fused_layers needs",
    ),
    "no norm": (
        lambda: _without(head_file.FUSE_NORM),
        "mtp.fuse_norm.weight is missing, which mtp.fused_layers needs",
    ),
    "of other layers": (_narrower, "mtp.fuse.weight: expected (64, 128), found (64, 127)"),
    "in a coarse format": (
        lambda: heads_spec().quantized(GGMLQuantizationType.Q4_0),
        "mtp.fuse.weight: expected F32 or F16 or BF16 or Q8_0, found Q4_0",
    ),
    "of a head that fuses nothing": (
        _not_asked_for,
        "mtp.fuse_norm.weight: expected with mtp.fused_layers only",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_fusion_that_is_wrong(case: str, tmp_path: Path) -> None:
    build, line = REFUSED[case]
    path = build().write(tmp_path / "heads.gguf")
    with pytest.raises(MtpError) as caught:
        list(inspect_lines(path))
    assert str(caught.value) == f"{path}: {line}"
