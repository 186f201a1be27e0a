"""Models in several files, as llama.cpp's gguf-split lays them out: the same as in one.

The parts are written by gguf-py, which has llama.cpp's layout too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from mtp_cli.errors import MtpError
from mtp_convert.commands.build import Options
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.commands.pack import plan_pack
from mtp_convert.commands.trial import try_heads
from mtp_convert.commands.trim import plan_trim
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.plan import Plan
from tests.convert.conftest import Convert
from tests.convert.heads import write_head_file

Folder = Callable[[str], Path]
WHOLE = Options(outtype="q8_0")


def split(source: Path, folder: Path, n_tensors: int, empty_first: bool = False) -> list[Path]:
    """The parts of a GGUF, n_tensors in each."""
    folder.mkdir()
    reader = GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(
        folder / "model.gguf", arch, split_max_tensors=n_tensors, small_first_shard=empty_first
    )
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            is_array = field.types[0] == GGUFValueType.ARRAY
            element = field.types[1] if is_array else None
            writer.add_key_value(key, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.iterdir())


def made(plan: Plan) -> tuple[object, list[tuple[str, object, bytes]]]:
    """All there is to a plan: pairs, and tensors with their bytes."""
    return plan.metadata, [
        (tensor.name, tensor.kind, b"".join(map(bytes, tensor.blocks()))) for tensor in plan.tensors
    ]


@pytest.mark.parametrize("planner", [plan_strip, plan_extract])
@pytest.mark.parametrize("empty_first", [False, True])
def test_heads_come_off_a_split_model(
    planner: Callable[[Path], Plan], empty_first: bool, converted: Convert, tmp_path: Path
) -> None:
    source = converted("mimo2", WHOLE)
    parts = split(source, tmp_path / "parts", 20, empty_first)
    assert len(parts) > 2
    for part in (parts[0], parts[-1]):  # any of them stands for all
        assert made(planner(part)) == made(planner(source))


def test_heads_go_onto_a_split_target(
    checkpoint: Folder, converted: Convert, tmp_path: Path
) -> None:
    target = converted("glm4moe", Options("target", outtype="q8_0"))
    parts = split(target, tmp_path / "parts", 20)
    folder = checkpoint("glm4moe")
    assert made(plan_graft(parts[0], folder)) == made(plan_graft(target, folder))


def test_packing_and_trimming_beside_a_split_target(converted: Convert, tmp_path: Path) -> None:
    target = converted("smollm", WHOLE)
    heads = write_head_file(tmp_path / "heads.gguf", target)
    (first, *_) = split(target, tmp_path / "parts", 10)
    (of_heads, *_) = split(heads, tmp_path / "heads", 5)
    assert made(plan_pack(first, of_heads)) == made(plan_pack(target, heads))
    counts = np.arange(320, dtype=np.int64)
    ours, wanted = (
        plan_trim(*files, counts, 64, [259]) for files in ((of_heads, first), (heads, target))
    )
    assert made(ours.plan) == made(wanted.plan)
    assert try_heads(first, heads, n_tokens=20) == try_heads(target, heads, n_tokens=20)


def test_inspect_counts_the_files(converted: Convert, tmp_path: Path) -> None:
    parts = split(converted("qwen35", WHOLE), tmp_path / "parts", 30)
    text = "\n".join(inspect_lines(parts[0]))
    assert f"tensors: 70 in {len(parts)} files" in text
    assert "heads: 1 (reused)" in text


@pytest.fixture
def parts(converted: Convert, tmp_path: Path) -> list[Path]:
    return split(converted("smollm", WHOLE), tmp_path / "parts", 10)


def test_a_missing_part(parts: list[Path]) -> None:
    parts[1].unlink()
    with pytest.raises(MtpError, match=f"1 of 3 parts missing, the first is {parts[1].name}"):
        open_model(parts[0])


def test_a_part_by_another_name(parts: list[Path], tmp_path: Path) -> None:
    other = parts[0].rename(tmp_path / "other.gguf")
    with pytest.raises(MtpError, match=r"other\.gguf: one of 3 parts; expected a name that ends"):
        open_model(other)


def test_parts_in_the_wrong_place(parts: list[Path]) -> None:
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(MtpError, match=f"{parts[2].name}: expected part 2 of 3 .* found 1 of 3"):
        open_model(parts[0])


def test_a_part_of_another_model(parts: list[Path], converted: Convert, tmp_path: Path) -> None:
    others = split(converted("qwen2", WHOLE), tmp_path / "others", 14)
    assert len(others) == 3
    parts[2].write_bytes(others[2].read_bytes())
    with pytest.raises(MtpError, match=r"in an earlier part too|expected 29 tensors in 3 parts"):
        open_model(parts[0])
