"""Commands on existing files: graft, extract, strip, pack, trim, inspect, check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from mtp_cli.engine import Engine, Sampling
from mtp_cli.errors import MtpError
from mtp_convert.commands.build import Options
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.pack import plan_pack
from mtp_convert.commands.trial import Trial, try_heads
from mtp_convert.commands.trim import choose_ids, parted, plan_trim
from mtp_convert.gguf.reuse import Wanted
from mtp_convert.gguf.write import write
from tests.convert.conftest import FAMILIES, WITH_HEADS, Convert
from tests.convert.heads import target_values, write_head_file
from tests.convert.native import head_rows, target_rows
from tests.convert.test_families import PROMPT, generate, values

Folder = Callable[[str], Path]
TARGET = Options("target", outtype="q8_0")


def contents(path: Path) -> dict[str, bytes]:
    return {t.name: bytes(t.data.tobytes()) for t in GGUFReader(path).tensors}


def pairs(path: Path) -> dict[str, object]:
    fields = GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


@pytest.mark.parametrize("family", WITH_HEADS)
def test_grafting_gives_the_file_that_converting_gives(
    family: str, checkpoint: Folder, converted: Convert, tmp_path: Path
) -> None:
    out = tmp_path / "grafted.gguf"
    write(plan_graft(converted(family, TARGET), checkpoint(family)), out)
    whole = converted(family, Options(outtype="q8_0"))
    assert contents(out) == contents(whole)
    found, wanted = pairs(out), pairs(whole)
    assert {k: v for k, v in found.items() if k != "general.size_label"} == {
        k: v for k, v in wanted.items() if k != "general.size_label"
    }


def test_grafting_opens_only_the_shards_that_hold_heads(
    checkpoint: Folder, converted: Convert, tmp_path: Path
) -> None:
    folder = tmp_path / "partial"
    folder.mkdir()
    for file in checkpoint("mimo2").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    heads = folder / "model_mtp.safetensors"
    move_to_own_shard(folder, heads, "model.mtp.")
    for file in folder.glob("model-*.safetensors"):
        file.unlink()
    plan = plan_graft(converted("mimo2", TARGET), folder)
    write(plan, tmp_path / "grafted.gguf")
    assert contents(tmp_path / "grafted.gguf") == contents(
        converted("mimo2", Options(outtype="q8_0"))
    )


def move_to_own_shard(folder: Path, file: Path, start: str) -> None:
    """Re-shard a tiny checkpoint so that the tensors called `start`... lie in one file."""
    import json

    from tests.convert.checkpoints import write_shard

    tiny = FAMILIES["mimo2"][0]()
    names = [name for name in tiny.tensors if name.startswith(start)]
    write_shard(file, {name: tiny.tensors[name] for name in names}, tiny.formats)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(names, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("family", "message"),
    [("qwen35moe", "architecture"), ("llama", "no heads of its own")],
)
def test_grafting_refuses_heads_of_another_kind_of_model(
    family: str, message: str, checkpoint: Folder, converted: Convert
) -> None:
    target = converted("qwen35" if family != "llama" else "llama", TARGET)
    with pytest.raises(MtpError, match=message):
        plan_graft(target, checkpoint(family))


def test_grafting_refuses_a_target_of_other_norms(
    checkpoint: Folder, converted: Convert, tmp_path: Path
) -> None:
    target = tmp_path / "other.gguf"
    raw = bytearray(converted("glm4moe", TARGET).read_bytes())
    tensor = next(
        t
        for t in GGUFReader(converted("glm4moe", TARGET)).tensors
        if t.name == "output_norm.weight"
    )
    offset = int(tensor.data_offset)
    raw[offset : offset + 4] = np.float32(3.5).tobytes()
    target.write_bytes(raw)
    with pytest.raises(MtpError, match=r"output_norm\.weight differs"):
        plan_graft(target, checkpoint("glm4moe"))


@pytest.mark.parametrize("family", WITH_HEADS)
def test_stripping_gives_the_file_converted_without_heads(
    family: str, converted: Convert, tmp_path: Path
) -> None:
    out = tmp_path / "stripped.gguf"
    write(plan_strip(converted(family, Options(outtype="q8_0"))), out)
    wanted = converted(family, TARGET)
    assert contents(out) == contents(wanted)
    found = pairs(out)
    for key, value in pairs(wanted).items():
        assert found[key] == value or key == "general.size_label", key


@pytest.mark.parametrize("family", WITH_HEADS)
def test_extracted_heads_draft_beside_the_stripped_target(
    family: str, converted: Convert, tmp_path: Path
) -> None:
    whole = converted(family, Options(outtype="q8_0"))
    heads, target = tmp_path / "heads.gguf", converted(family, TARGET)
    write(plan_extract(whole), heads)
    assert contents(heads).items() <= contents(whole).items()
    own = converted(family, Options("heads", outtype="q8_0"))
    assert contents(heads) == contents(own)
    assert drafts(target, heads) == drafts(whole, None) == drafts(target, own)


def drafts(model: Path, heads: Path | None) -> tuple[list[int], list[int], list[int]]:
    """Tokens, and what was drafted and accepted: equal only for equal heads."""
    with Engine.open(model, heads, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        run = engine.generate(PROMPT, Sampling(temperature=0.0), max_tokens=30, depth=3)
        for _ in run:
            pass
        return run.tokens, run.stats.verified, run.stats.accepted


def test_extracting_in_another_format(converted: Convert, tmp_path: Path) -> None:
    write(plan_extract(converted("glm4moe"), Wanted("q8_0")), tmp_path / "heads.gguf")
    kinds = {t.name: t.tensor_type for t in GGUFReader(tmp_path / "heads.gguf").tensors}
    assert kinds["blk.3.nextn.eh_proj.weight"] == GGMLQuantizationType.Q8_0
    assert kinds["blk.3.nextn.enorm.weight"] == GGMLQuantizationType.F32


@pytest.mark.parametrize("planner", [plan_extract, plan_strip])
def test_a_file_without_heads_says_what_adds_them(
    planner: Callable[..., object], converted: Convert
) -> None:
    with pytest.raises(MtpError, match="holds no MTP heads; mtp-convert graft or pack"):
        planner(converted("llama"))


@pytest.fixture
def target(converted: Convert) -> Path:
    return converted("smollm", Options(outtype="q8_0"))


def test_a_packed_target_computes_the_same_function(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target)
    packed = tmp_path / "packed.gguf"
    write(plan_pack(target, heads), packed)
    assert generate(packed, 0)[0] == generate(target, 0)[0]
    _, hidden = target_rows(packed, PROMPT)
    beside, _ = head_rows(heads, PROMPT, hidden)
    within, _ = head_rows(packed, PROMPT, hidden)
    np.testing.assert_allclose(within, beside, rtol=1e-4, atol=1e-4)
    # The target's row before its norm, whichever architecture gives it.
    _, normed = target_rows(target, PROMPT, nextn=False)
    before = normed / target_values(target, "output_norm.weight")
    scale = np.linalg.norm(hidden, axis=1) / np.linalg.norm(before, axis=1)
    np.testing.assert_allclose(before * scale[:, None], hidden, rtol=1e-3, atol=1e-4)
    assert sum(drafts(packed, None)[1]) > 20
    raw, old = contents(packed), contents(target)
    moved = {n for n in old if n.endswith(("attn_q.weight", "attn_k.weight"))}
    assert all(raw[n] == old[n] for n in old.keys() - moved)
    assert all(sorted(rows(raw[n])) == sorted(rows(old[n])) for n in moved)


def rows(raw: bytes, n_row: int = 64 // 32 * 34) -> list[bytes]:
    return [raw[i : i + n_row] for i in range(0, len(raw), n_row)]


def test_packing_a_trimmed_head_gives_its_rows_among_the_targets(
    target: Path, tmp_path: Path
) -> None:
    ids = np.arange(10, 300, 2, dtype=np.int32)
    heads = write_head_file(tmp_path / "heads.gguf", target, ids)
    write(plan_pack(target, heads, Wanted(explicit_head="f32")), tmp_path / "packed.gguf")
    found = {t.name: t for t in GGUFReader(tmp_path / "packed.gguf").tensors}
    output = values(found["blk.3.nextn.shared_head_head.weight"])
    wanted = target_values(target, "token_embd.weight").copy()
    wanted[ids] = target_values(heads, "output.weight")
    np.testing.assert_array_equal(output, wanted)
    assert sum(drafts(tmp_path / "packed.gguf", None)[1]) > 20


@pytest.mark.parametrize(
    ("family", "message"),
    [("qwen3", "architecture qwen3; only llama"), ("llama", "rope_freqs.weight: mimo2 has no")],
)
def test_packing_refuses_what_mimo2_cannot_compute(
    family: str, message: str, converted: Convert, tmp_path: Path
) -> None:
    other = converted(family)
    heads = write_head_file(tmp_path / "heads.gguf", other)
    with pytest.raises(MtpError, match=message):
        plan_pack(other, heads)


def test_packing_refuses_heads_of_another_target(
    target: Path, converted: Convert, tmp_path: Path
) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", converted("qwen2"))
    with pytest.raises(MtpError, match="made for tiny, not for"):
        plan_pack(target, heads)


def test_packing_refuses_heads_on_other_rows(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target, hidden="post_norm")
    with pytest.raises(MtpError, match="expected mimo2 heads on pre_norm rows"):
        plan_pack(target, heads)


def test_trimming_keeps_rows_maps_ids_and_says_what_it_covers(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target)
    counts = np.zeros(320, np.int64)
    counts[40:140] = np.arange(100, 0, -1)
    trimmed = plan_trim(heads, target, counts, 64, [259])
    out = tmp_path / "trimmed.gguf"
    write(trimmed.plan, out)
    ids = np.array([*range(40, 103), 259])
    assert trimmed.coverage(counts) == pytest.approx(counts[40:103].sum() / counts.sum())
    np.testing.assert_array_equal(pairs(out)["mtp.draft_ids"], ids)
    np.testing.assert_array_equal(
        target_values(out, "output.weight"), target_values(heads, "output.weight")[ids]
    )
    embeddings = target_values(target, "token_embd.weight")
    cosines = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    nearest = (cosines @ cosines[ids].T).argmax(axis=1)
    nearest[ids] = np.arange(64)
    np.testing.assert_array_equal(pairs(out)["mtp.surrogates"], nearest)
    tokens, drafted, _ = drafts(target, out)
    assert tokens == generate(target, 0)[0][:30]
    assert sum(drafted) > 20
    again = plan_trim(out, target, counts, 32, [259])  # a trimmed head can be trimmed further
    np.testing.assert_array_equal(again.plan.metadata["mtp.draft_ids"].value, [*range(40, 71), 259])


def test_every_fifth_piece_of_text_is_held_out() -> None:
    chosen, held_out = parted([range(320), range(320, 330), range(330, 640)])
    assert [list(piece) for piece in held_out] == [[*range(256, 320)], [*range(522, 586)]]
    kept = [i for piece in chosen for i in piece]
    assert sorted(kept + [i for piece in held_out for i in piece]) == list(range(640))
    assert parted([[1, 2, 3]]) == ([[1, 2, 3]], [])


def test_equally_frequent_ids_are_taken_from_the_front() -> None:
    chosen = choose_ids(np.zeros(10, np.int64), 4, np.arange(10, dtype=np.int32), [9])
    assert chosen.tolist() == [0, 1, 2, 9]


def test_trimming_refuses_a_size_that_is_no_smaller(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target)
    with pytest.raises(MtpError, match="320 is no smaller number"):
        plan_trim(heads, target, np.ones(320, np.int64), 320, [])


@pytest.mark.parametrize(
    ("accepted", "coarse", "warnings"),
    [
        ([60, 30, 20], [], []),
        ([60, 30, 20], ["blk.0.a"], []),
        ([1, 0, 0], [], ["look mis-loaded or untrained"]),
        ([15, 2, 0], ["blk.0.a"], ["blk.0.a has fewer than eight bits; quantization may have"]),
        ([15, 2, 0], [], []),
        ([1, 0, 0], ["blk.0.a"], ["look mis-loaded", "quantization may have damaged"]),
    ],
)
def test_check_warns_of_heads_that_accept_too_little(
    accepted: list[int], coarse: list[str], warnings: list[str]
) -> None:
    lines = list(Trial("heads", [100, 80, 60], accepted, 0, 5).lines(coarse))
    assert lines[1] == f"position 1: {accepted[0] / 100:.3f} of 100 accepted"
    found = [line for line in lines if line.startswith("warning")]
    assert len(found) == len(warnings)
    assert all(words in line for words, line in zip(warnings, found, strict=True))


def test_check_sees_equal_output_and_heads_that_know_nothing(target: Path, tmp_path: Path) -> None:
    trial = try_heads(target, write_head_file(tmp_path / "heads.gguf", target), n_tokens=30)
    assert trial.n_differing == 0
    assert trial.verified[0] > 100
    lines = "\n".join(trial.lines([]))
    assert "equals plain output: 5 of 5" in lines
    assert "look mis-loaded" in lines
