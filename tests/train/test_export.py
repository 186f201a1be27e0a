"""The head file: read back by the independent reader, refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from mtp_cli import models
from mtp_cli.errors import MtpError
from mtp_cli.head_file import Fused, HeadInfo
from mtp_train.corpus import make_vocabulary
from mtp_train.existing import read_head
from mtp_train.export import write_head
from mtp_train.shape import HeadShape
from mtp_train.target import Target

SHAPE = HeadShape(576, 9, 3, 64, 64, 32, 1e-5, 1e5)
FUSED = replace(SHAPE, fused_layers=(2, 15, 27), prompt_rows=256)
WITH_FINAL = replace(FUSED, with_final=True)
EXACT = dict.fromkeys(("token_embd", "output", "block"), GGMLQuantizationType.F32)


def weights(shape: HeadShape = SHAPE) -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    shapes = {"output": (shape.n_draft, shape.n_embd), **shape.matrices(), **shape.norms()}
    return {name: rng.standard_normal(size).astype(np.float32) for name, size in shapes.items()}


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(models.built_in_model())


def test_what_is_written_reads_back(target: Target, tmp_path: Path) -> None:
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), target.token_embd)
    path = tmp_path / "head.gguf"
    write_head(path, target, vocabulary, SHAPE, weights(), EXACT)
    reader = GGUFReader(path)
    pairs = {key: field.contents() for key, field in reader.fields.items()}
    info = HeadInfo.from_metadata(pairs)
    assert info.fingerprint == target.fingerprint
    assert (info.n_embd, info.n_vocab, info.hidden) == (576, 49152, "pre_norm")
    assert pairs["general.architecture"] == "mimo2"
    assert pairs["general.type"] == "mtp-head"
    tensors = {t.name: np.asarray(dequantize(t.data, t.tensor_type)) for t in reader.tensors}
    np.testing.assert_array_equal(tensors["blk.0.nextn.eh_proj.weight"], weights()["eh_proj"])
    np.testing.assert_array_equal(tensors["token_embd.weight"], target.token_embd[5:37])
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["eh_proj", "output", "ffn_down", "hnorm"])
def test_a_wrong_width_is_refused_and_nothing_written(
    target: Target, tmp_path: Path, name: str
) -> None:
    vocabulary = make_vocabulary(np.arange(32, dtype=np.int32), target.token_embd)
    wrong = weights()
    wrong[name] = wrong[name][..., :-1]
    with pytest.raises(MtpError, match=f"{name}: expected"):
        write_head(tmp_path / "head.gguf", target, vocabulary, SHAPE, wrong, EXACT)
    assert not list(tmp_path.iterdir())


def test_a_head_for_another_width_is_refused(target: Target, tmp_path: Path) -> None:
    vocabulary = make_vocabulary(np.arange(32, dtype=np.int32), target.token_embd)
    with pytest.raises(MtpError, match="over 32 ids, found width 576 over 64"):
        write_head(tmp_path / "h", target, vocabulary, replace(SHAPE, n_draft=64), weights(), EXACT)


@pytest.mark.parametrize("shape", [SHAPE, FUSED, WITH_FINAL])
def test_a_file_is_read_back_for_a_second_run(
    target: Target, tmp_path: Path, shape: HeadShape
) -> None:
    vocabulary = make_vocabulary(np.arange(5, 37, dtype=np.int32), target.token_embd)
    path = tmp_path / "head.gguf"
    write_head(path, target, vocabulary, shape, weights(shape), EXACT)
    found = read_head(path, target)
    np.testing.assert_array_equal(found.draft_ids, vocabulary.draft_ids)
    fused = Fused((2, 15, 27), 256, with_final=shape is WITH_FINAL)
    assert found.fused == (None if shape is SHAPE else fused)
    assert found.weights.keys() == weights(shape).keys()
    for name, value in weights(shape).items():
        np.testing.assert_array_equal(found.weights[name], value)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"nonsense" * 100])
def test_what_is_no_head_file_is_refused(target: Target, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "head.gguf"
    path.write_bytes(content)
    with pytest.raises(MtpError, match=r"head\.gguf: "):
        read_head(path, target)


def test_the_shipped_head_fits_its_model_and_its_limit(target: Target) -> None:
    path = models.built_in_heads()
    assert path is not None
    assert path.stat().st_size <= 16_000_000
    info = HeadInfo.from_metadata({k: f.contents() for k, f in GGUFReader(path).fields.items()})
    assert info.fingerprint == target.fingerprint
