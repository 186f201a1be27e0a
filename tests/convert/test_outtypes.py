"""Commands on existing files asked for another format: --outtype and --head-outtype."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import LlamaFileType

from mtp_cli.errors import MtpError
from mtp_convert.commands.build import Options
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.pack import plan_pack
from mtp_convert.commands.trim import plan_trim
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.metadata import encode_header, pairs
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import Taken, Wanted
from mtp_convert.gguf.write import write
from mtp_convert.tensors.formats import decode
from mtp_convert.tensors.kinds import Kind, row_bytes
from tests.convert.conftest import Convert
from tests.convert.heads import write_head_file
from tests.convert.test_families import generate

Folder = Callable[[str], Path]
TARGET = Options("target", outtype="q8_0")


@pytest.fixture
def target(converted: Convert) -> Path:
    return converted("smollm", Options(outtype="q8_0"))


def kinds(plan: Plan) -> dict[str, str]:
    return {tensor.name: tensor.kind.name for tensor in plan.tensors}


def test_every_command_on_files_takes_formats(
    checkpoint: Folder, converted: Convert, target: Path, tmp_path: Path
) -> None:
    """--outtype for the target, --head-outtype for the heads, which else stay at eight bits."""
    whole, bare = converted("glm4moe"), converted("glm4moe", TARGET)
    heads = write_head_file(tmp_path / "heads.gguf", target)
    counts = np.ones(320, np.int64)
    both = Wanted("q4_0", "f16")
    matrix, of_target = "blk.3.nextn.eh_proj.weight", "blk.1.attn_q.weight"
    for wanted, of_head in ((Wanted("q4_0"), "Q8_0"), (both, "F16")):
        grafted = kinds(plan_graft(bare, checkpoint("glm4moe"), wanted))
        assert (grafted[of_target], grafted[matrix]) == ("Q4_0", of_head)
        packed = kinds(plan_pack(target, heads, wanted))
        assert (packed[of_target], packed[matrix]) == ("Q4_0", of_head)
        assert kinds(plan_strip(whole, wanted))[of_target] == "Q4_0"
        extracted = kinds(plan_extract(whole, wanted))
        assert (extracted["token_embd.weight"], extracted[matrix]) == ("Q4_0", of_head)
        trimmed = kinds(plan_trim(heads, target, counts, 64, [], wanted).plan)
        eh_proj = "blk.0.nextn.eh_proj.weight"
        assert (trimmed["token_embd.weight"], trimmed[eh_proj]) == ("Q4_0", of_head)


def test_another_format_says_so_in_the_file_and_what_it_costs(
    converted: Convert, tmp_path: Path
) -> None:
    plan = plan_strip(converted("glm4moe", Options(outtype="q8_0")), Wanted("q4_k_m"))
    assert plan.metadata["general.file_type"].value == LlamaFileType.MOSTLY_Q4_K_M
    assert any("from Q8_0; what that lost stays lost" in note for note in plan.notes)
    write(plan, tmp_path / "out.gguf")
    assert len(generate(tmp_path / "out.gguf", 0)[0]) == 40
    plan = plan_strip(converted("glm4moe", Options(outtype="q8_0")))
    assert plan.metadata["general.file_type"].value == LlamaFileType.MOSTLY_Q8_0
    assert plan.notes == ()


def test_rows_that_move_can_change_their_format_too(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target)
    as_it_is = plan_pack(target, heads).tensors
    for before, after in zip(
        as_it_is, plan_pack(target, heads, Wanted("f32")).tensors, strict=True
    ):
        raw, found = (b"".join(map(bytes, tensor.blocks())) for tensor in (before, after))
        assert (after.name, after.kind.name) == (before.name, "F32")
        np.testing.assert_array_equal(
            np.frombuffer(found, np.float32), decode(raw, before.kind, before.shape).ravel()
        )


def test_a_format_that_nobody_can_read_is_one_line(tmp_path: Path) -> None:
    path, n_bytes = tmp_path / "odd.gguf", row_bytes(Kind.Q8_1, 32)
    header = encode_header(pairs({"general.architecture": "x"}), [("t", (1, 32), Kind.Q8_1, 0)], 32)
    path.write_bytes(header + bytes(n_bytes))
    taken = Taken(read_gguf(path), "t", "t")
    assert b"".join(map(bytes, taken.planned(None).blocks())) == bytes(n_bytes)
    with pytest.raises(MtpError, match=r"odd\.gguf: t: cannot read Q8_1 to change it"):
        list(taken.planned(Kind.F16).blocks())
