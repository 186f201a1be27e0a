"""Heads with fewer ids in the common form (`d2t`), and llama.cpp's sidecars: read and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from typer.testing import CliRunner

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend import our_kernels
from mtp_cli.errors import MtpError
from mtp_convert.cli import app
from mtp_convert.commands.build import Options
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.commands.pack import plan_pack
from mtp_convert.commands.trim import plan_trim
from mtp_convert.gguf.reuse import Wanted
from mtp_convert.gguf.write import write
from tests.convert.conftest import Convert
from tests.convert.heads import target_values, write_head_file
from tests.engine import tiny
from tests.engine.tiny_sidecar import parts

Q8_0 = GGMLQuantizationType.Q8_0
GREEDY = Sampling(temperature=0.0)
COUNTS = np.where((np.arange(320) >= 40) & (np.arange(320) < 140), 5, 0)
KEPT = np.array([*range(40, 119), 259])
SIZE = len(KEPT)

needs_kernels = pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")


@pytest.fixture(scope="module")
def target(converted: Convert) -> Path:
    return converted("smollm", Options(outtype="q8_0"))


def stored(path: Path) -> dict[str, bytes]:
    return {t.name: bytes(t.data.tobytes()) for t in GGUFReader(path).tensors}


def trimmed(heads: Path, target: Path, out: Path, *, common: bool = False) -> Path:
    counts = np.resize(COUNTS, tiny.N_VOCAB) if "tiny" in target.name else COUNTS
    always = [] if "tiny" in target.name else [259]
    write(plan_trim(heads, target, counts, SIZE, always, common=common).plan, out)
    return out


def answer(target: Path, heads: Path | None) -> tuple[list[int], list[int]]:
    """Its ids, and how many were drafted at each depth."""
    with Engine.open(target, heads, n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        prompt = tiny.random_ids(20, seed=4)
        run = engine.generate(prompt, GREEDY, max_tokens=30, depth=3 if heads else 0)
        return [token for tokens in run for token in tokens], run.stats.verified


@needs_kernels
def test_a_head_of_mtp_trains_in_the_common_form(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target, kind=Q8_0)
    out = trimmed(heads, target, tmp_path / "mtp-x.gguf", common=True)
    before, after = stored(heads), stored(out)
    assert after.keys() - before.keys() == {"d2t"}
    assert {name for name in before if before[name] != after[name]} == {"output.weight"}
    ids = next(t for t in GGUFReader(out).tensors if t.name == "d2t")
    assert ids.data.dtype == np.int64
    np.testing.assert_array_equal(ids.data, KEPT)
    np.testing.assert_array_equal(
        target_values(out, "output.weight"), target_values(heads, "output.weight")[KEPT]
    )
    lines = [*inspect_lines(out)]
    assert f"draft vocabulary: {SIZE} ids, as d2t (llama.cpp#29143)" in lines
    assert "runs in: mtp-chat --heads, beside its target" in lines
    with_drafts = answer(target, out)
    assert with_drafts[0] == answer(target, None)[0]
    assert sum(with_drafts[1]) > 20


def test_from_the_common_form_into_ours(target: Path, tmp_path: Path) -> None:
    """To the byte what the whole head would have become; `--ids` may be left out."""
    heads = write_head_file(tmp_path / "heads.gguf", target, kind=Q8_0)
    common = trimmed(heads, target, tmp_path / "common.gguf", common=True)
    wanted = trimmed(heads, target, tmp_path / "wanted.gguf")
    out = tmp_path / "ours.gguf"
    done = CliRunner().invoke(app, ["trim", str(common), str(target), "-o", str(out)])
    assert done.exit_code == 0, done.exception
    assert stored(out) == stored(wanted)
    said, expected = (
        {k: f.contents() for k, f in GGUFReader(path).fields.items() if k.startswith("mtp.")}
        for path in (out, wanted)
    )
    assert said.pop("mtp.written_by") == "mtp-convert"
    assert said == expected


def test_ids_in_any_order_keep_their_rows(target: Path, tmp_path: Path) -> None:
    """Of a file of others, by how often they occur; some of them, and all embeddings."""
    heads = write_head_file(tmp_path / "heads.gguf", target)
    order = np.random.default_rng(3).permutation(320)[:200]
    tensors = {t.name: np.array(t.data) for t in GGUFReader(heads).tensors}
    tensors["output.weight"] = tensors["output.weight"][order]
    fields = GGUFReader(heads).fields.items()
    keys = {k: f.contents() for k, f in fields if not k.startswith(("GGUF.", "general.arch"))}
    spec = tiny.Spec("mimo2", keys, tensors, integers={"d2t": order.astype(np.int64)})
    given = spec.write(tmp_path / "given.gguf")
    counts = np.zeros(320, np.int64)
    counts[order[:70]] = 3
    ids = np.sort(order[:70])
    for common in (False, True):
        out = tmp_path / f"{common}.gguf"
        write(plan_trim(given, target, counts, 70, [], common=common).plan, out)
        output, read = (target_values(out, f"{name}.weight") for name in ("output", "token_embd"))
        np.testing.assert_array_equal(output, target_values(heads, "output.weight")[ids])
        whole = target_values(heads, "token_embd.weight")
        np.testing.assert_array_equal(read, whole if common else whole[ids])
        if common:
            found = next(t for t in GGUFReader(out).tensors if t.name == "d2t")
            np.testing.assert_array_equal(found.data, ids)


@pytest.fixture
def sidecar(tmp_path: Path) -> tuple[Path, Path]:
    """A target of another family, and its heads as llama.cpp writes them, tied to the embedding."""
    target, heads = parts(tiny.qwen35())
    tensors = {k: v for k, v in heads.tensors.items() if k != "output.weight"}
    return (
        target.write(tmp_path / "tiny-target.gguf"),
        replace(heads, tensors=tensors).write(tmp_path / "mtp-tiny.gguf"),
    )


def test_a_sidecar_in_the_common_form_and_in_ours(
    sidecar: tuple[Path, Path], tmp_path: Path
) -> None:
    """Nothing runs the first; llama.cpp as it is runs the second."""
    target, heads = sidecar
    common = trimmed(heads, target, tmp_path / "common.gguf", common=True)
    assert stored(common).keys() - stored(heads).keys() == {"d2t", "output.weight"}
    ids = next(t for t in GGUFReader(common).tensors if t.name == "d2t").data
    np.testing.assert_array_equal(
        target_values(common, "output.weight"), target_values(heads, "token_embd.weight")[ids]
    )
    assert [*inspect_lines(common)][-4] == (
        "runs in: nothing yet; mtp-convert trim makes a head file of it that runs"
    )
    done = CliRunner().invoke(
        app, ["trim", str(common), str(target), "-o", str(tmp_path / "ours.gguf")]
    )
    assert done.exit_code == 0, done.exception
    assert "acceptance before: nothing here runs common.gguf" in done.stderr
    for path in (tmp_path / "ours.gguf", trimmed(heads, target, tmp_path / "direct.gguf")):
        with_drafts = answer(target, path)
        assert with_drafts[0] == answer(target, None)[0]
        assert sum(with_drafts[1]) > 20


def trim(heads: Path, target: Path, out: Path, *options: str) -> tuple[int, str, str]:
    """Of `mtp-convert trim --d2t`: exit status, the error's line, stderr."""
    text = out.with_suffix(".txt")
    text.write_text("The head is of one block. " * 40)
    given = [str(heads), str(target), "-o", str(out), "--text", str(text)]
    done = CliRunner().invoke(app, ["trim", *given, "--d2t", *options])
    return done.exit_code, str(done.exception), done.stderr


@pytest.mark.parametrize(
    ("kind", "options", "advice"),
    [
        (GGMLQuantizationType.F32, ("--ids", "80"), "take --outtype q8_0, or leave out --d2t"),
        (Q8_0, ("--ids", "80", "--outtype", "f16"), "take --outtype q8_0, or leave out --d2t"),
        (
            Q8_0,
            ("--ids", "80", "--outtype", "q8_0", "--head-outtype", "bf16"),
            "take --outtype q8_0 and no --head-outtype, or leave out --d2t",
        ),
        (Q8_0, ("--ids", "63"), "take --ids 64 or more, or leave out --d2t"),
    ],
)
def test_what_nothing_would_run_is_not_written(
    kind: GGMLQuantizationType, options: tuple[str, ...], advice: str, target: Path, tmp_path: Path
) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target, kind=kind)
    out = tmp_path / "out.gguf"
    line = f"{heads}: nothing would run this head with d2t; {advice}"
    assert trim(heads, target, out, *options)[:2] == (1, line)
    assert not out.exists()


def test_nor_heads_that_are_chained(tmp_path: Path) -> None:
    target, heads = parts(tiny.mimo2())
    paths = target.write(tmp_path / "tiny-target.gguf"), heads.write(tmp_path / "mtp-tiny.gguf")
    status, line, _ = trim(paths[1], paths[0], tmp_path / "out.gguf", "--ids", "80")
    assert (status, line.partition("; ")[2]) == (1, "leave out --d2t")
    assert not (tmp_path / "out.gguf").exists()


@needs_kernels
def test_what_comes_out_in_q8_0_is_written_and_runs(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target)
    out = tmp_path / "out.gguf"
    status, line, said = trim(heads, target, out, "--ids", "80", "--outtype", "q8_0")
    assert status == 0, line
    assert "acceptance by position after: " in said
    assert "runs in: mtp-chat --heads, beside its target" in [*inspect_lines(out)]


def test_what_a_build_of_llama_cpp_may_run_is_written(
    sidecar: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    status, line, said = trim(sidecar[1], sidecar[0], out, "--ids", "80")
    assert status == 0, line
    assert "acceptance after: nothing here runs out.gguf" in said


def test_what_others_wrote_and_nothing_runs_is_said(target: Path, tmp_path: Path) -> None:
    """A head of mtp-train's shape, in the common form and in full floats."""
    heads = write_head_file(tmp_path / "heads.gguf", target)
    given = trimmed(heads, target, tmp_path / "given.gguf", common=True)
    line = "runs in: nothing yet; mtp-convert trim makes a head file of it that runs"
    assert line in [*inspect_lines(given)]
    out = tmp_path / "ours.gguf"
    done = CliRunner().invoke(app, ["trim", str(given), str(target), "-o", str(out)])
    assert done.exit_code == 0, done.exception
    assert "acceptance before: nothing here runs given.gguf" in done.stderr


def test_a_sidecar_of_another_model_is_not_trimmed(
    sidecar: tuple[Path, Path], tmp_path: Path
) -> None:
    other = parts(tiny.qwen35(seed=77))[0].write(tmp_path / "tiny-other.gguf")
    with pytest.raises(MtpError, match="made for another model than"):
        plan_trim(sidecar[1], other, COUNTS[: tiny.N_VOCAB], SIZE, [])


def test_an_embedding_that_is_cut_has_no_place_in_it(target: Path, tmp_path: Path) -> None:
    ids = np.arange(0, 320, 2, dtype=np.int32)
    heads = write_head_file(tmp_path / "cut.gguf", target, draft_ids=ids)
    with pytest.raises(MtpError, match="an embedding that is cut already; trim the whole head"):
        plan_trim(heads, target, COUNTS, SIZE, [], common=True)


def test_a_fusion_has_no_place_in_it_either(tmp_path: Path) -> None:
    target = tiny.llama().write(tmp_path / "target.gguf")
    heads = tiny.fused_heads_for(tiny.llama(), [1]).write(tmp_path / "fused.gguf")
    with pytest.raises(MtpError, match="a head that fuses rows of layers: d2t has no place for it"):
        plan_trim(heads, target, COUNTS[: tiny.N_VOCAB], SIZE, [], common=True)


def _with(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tiny.Spec:
    spec = tiny.heads_for(tiny.llama(), hidden="pre_norm")
    output = spec.tensors["output.weight"][:100]
    tensors = {**spec.tensors, "output.weight": output}
    return replace(spec, tensors=tensors, integers={"d2t": values})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (np.arange(99), "d2t: expected 100 int64 numbers, one for each output"),
        (np.arange(100, dtype=np.int32), "d2t: expected 100 int64 numbers"),
        (np.arange(100) + 200, f"d2t: expected ids below {tiny.N_VOCAB}"),
        (np.arange(100) // 2, "d2t: an id is there twice"),
    ],
)
def test_maps_that_are_wrong(
    values: np.ndarray[tuple[int], np.dtype[np.int64]], line: str, tmp_path: Path
) -> None:
    target = tiny.llama().write(tmp_path / "target.gguf")
    heads = _with(values).write(tmp_path / "heads.gguf")
    with pytest.raises(MtpError, match=line):
        plan_trim(heads, target, COUNTS[: tiny.N_VOCAB], 64, [])


def test_pack_takes_no_common_form(target: Path, tmp_path: Path) -> None:
    heads = write_head_file(tmp_path / "heads.gguf", target)
    common = trimmed(heads, target, tmp_path / "common.gguf", common=True)
    with pytest.raises(MtpError, match="fewer ids by d2t; give what mtp-convert trim makes of it"):
        plan_pack(target, common, Wanted())
