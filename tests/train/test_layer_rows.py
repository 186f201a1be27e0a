"""Rows of chosen layers: read again from a text, kept beside their shard, chosen by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from mtp_cli.engine.backend import our_kernels
from mtp_cli.engine.backend.binding import heard
from mtp_cli.engine.files.memory import Machine
from mtp_cli.errors import MtpError
from mtp_train.corpus import Role, Sample, read_corpus, read_shard, write_shard
from mtp_train.layer_rows import chosen_layers, missing_layers, open_rows, rows_path, unit_rows
from mtp_train.reread import add_layers
from mtp_train.target import Target
from tests.engine import tiny

LAYERS = (1, 2)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tiny.llama(n_blocks=4).write(tmp_path / "tiny.gguf"))


@pytest.fixture
def shard(tmp_path: Path, target: Target) -> Path:
    path = tmp_path / "shard-1-0000.npz"
    texts = []
    for seed, n in ((1, 30), (2, 12)):
        roles = np.array([Role.GIVEN] * 4 + [Role.GREEDY] * (n - 4), np.uint8)
        ids = np.array(tiny.random_ids(n, seed), np.int32)
        texts.append(Sample(ids, roles, np.zeros((n, tiny.N_EMBD), np.float16)))
    write_shard(path, target.fingerprint, texts, [{}, {}])
    return path


def add(target: Target, shard: Path, layers: tuple[int, ...]) -> int:
    """The tokens that were read for it."""
    told: list[int] = []
    eps = target.sizes.rms_eps
    add_layers(
        target.path,
        [shard],
        target.fingerprint,
        layers,
        eps=eps,
        n_threads=1,
        on_text=told.append,
    )
    return sum(told)


def test_a_texts_rows_are_what_the_layers_read(target: Target, shard: Path) -> None:
    assert missing_layers(shard, LAYERS) == [1, 2]
    assert add(target, shard, LAYERS) == 42
    assert missing_layers(shard, LAYERS) == []
    first, second = read_shard(shard, target.fingerprint, LAYERS)
    assert [len(rows) for rows in first.layers + second.layers] == [30, 30, 12, 12]
    low, high = (rows.astype(np.float32) for rows in first.layers)
    np.testing.assert_allclose(np.square(low).mean(1), 1, rtol=1e-2)
    assert np.abs(low - high).max() > 0.01
    # The residual stream: the token's embedding is still in the first layer's output.
    embedded = unit_rows(target.token_embd[first.ids], 1e-5).astype(np.float32)
    assert (low * embedded).mean() > 0.2


@pytest.mark.skipif(our_kernels.install() is None, reason="no kernels here")
def test_where_memory_is_short_the_targets_weights_stay_mapped(
    target: Target, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny.llama(n_blocks=4).quantized(GGMLQuantizationType.Q8_0)
    quantized = Target(spec.write(tmp_path / "q8_0.gguf"))
    assert quantized.fingerprint == target.fingerprint
    for layer, free in ((1, 1 << 30), (2, quantized.path.stat().st_size)):
        machine = Machine(total=1 << 30, free=free)
        monkeypatch.setattr(Machine, "here", lambda machine=machine: machine)
        with heard() as lines:
            add(quantized, shard, (layer,))
        assert any("CPU_MTP model buffer size" in line for line in lines) == (free == 1 << 30)


def test_each_text_is_read_by_itself(target: Target, shard: Path, tmp_path: Path) -> None:
    add(target, shard, LAYERS)
    _, second = read_shard(shard, target.fingerprint, LAYERS)
    alone = tmp_path / "shard-1-0001.npz"
    write_shard(alone, target.fingerprint, [second], [{}])
    add(target, alone, LAYERS)
    (found,) = read_shard(alone, target.fingerprint, LAYERS)
    for one, other in zip(found.layers, second.layers, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_only_layers_that_lack_are_read_again(target: Target, shard: Path) -> None:
    add(target, shard, (1,))
    before = rows_path(shard, 1).stat().st_mtime_ns
    assert add(target, shard, LAYERS) == 42
    assert rows_path(shard, 1).stat().st_mtime_ns == before
    corpus = read_corpus(shard.parent, target.fingerprint, layers=(2,))
    assert all(len(s.layers) == 1 for s in corpus.training + corpus.held_out)


def test_rows_that_are_not_the_shards_are_refused(target: Target, shard: Path) -> None:
    np.save(rows_path(shard, 1), np.zeros((7, tiny.N_EMBD), np.float16))
    with pytest.raises(MtpError, match=r"layer-1\.npy: does not belong to its shard"):
        open_rows(shard, 1, 42, tiny.N_EMBD)
    rows_path(shard, 1).write_bytes(b"")
    with pytest.raises(MtpError, match=r"layer-1\.npy: cannot be read"):
        open_rows(shard, 1, 42, tiny.N_EMBD)


def test_a_first_token_too_large_for_float16_is_kept_by_its_direction() -> None:
    rows = np.array([[3e5, -4e5], [0.3, -0.4]], np.float32)
    found = unit_rows(rows, 0.0)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def test_layers_are_chosen_by_name_or_a_low_a_middle_and_a_high_one(target: Target) -> None:
    assert chosen_layers(target, "1,3") == (1, 3)
    assert chosen_layers(target, "none") == ()
    assert chosen_layers(target, None) == (1, 2)  # of four: 2, 2 and 1
    for wrong in ("0,1", "1,4", "2,1", "1,1", "one", "1,,2"):
        with pytest.raises(MtpError, match=f"--layers {wrong}: expected rising numbers from 1 to"):
            chosen_layers(target, wrong)


def test_a_target_whose_graph_hands_out_nothing_is_read_by_its_tensors_names(
    tmp_path: Path,
) -> None:
    target = Target(tiny.gemma2().write(tmp_path / "gemma2.gguf"))
    ids = np.array(tiny.random_ids(20, 3), np.int32)
    roles = np.full(20, Role.GREEDY, np.uint8)
    path = tmp_path / "shard-1-0000.npz"
    rows = np.zeros((20, target.sizes.n_embd), np.float16)
    write_shard(path, target.fingerprint, [Sample(ids, roles, rows)], [{}])
    add(target, path, (1,))
    (found,) = read_shard(path, target.fingerprint, (1,))
    np.testing.assert_allclose(np.square(found.layers[0].astype(np.float32)).mean(1), 1, rtol=1e-2)
