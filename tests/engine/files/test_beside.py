"""A head file beside its model is found by its name, and by what it says it was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtp_cli.engine.files.beside import heads_beside
from tests.engine import tiny, tiny_block, tiny_eagle3
from tests.engine.specs import SPECS


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return SPECS["llama"]().write(tmp_path / "some-Q4_K_M.gguf")


@pytest.mark.parametrize(
    "name", ["some-Q4_K_M-mtp.gguf", "mtp-some-Q4_K_M.gguf", "mtp-some-Q8_0.gguf", "other-MTP.gguf"]
)
def test_it_is_found_by_the_names_that_tools_give(model: Path, name: str) -> None:
    heads = SPECS["heads"]().write(model.with_name(name))
    assert heads_beside(model) == heads


def test_the_one_called_after_the_model_comes_first(model: Path) -> None:
    SPECS["heads"]().write(model.with_name("a-mtp.gguf"))
    own = SPECS["heads"]().write(model.with_name("some-Q4_K_M-mtp.gguf"))
    assert heads_beside(model) == own


def test_an_eagle_3_drafter_is_found_after_heads(tmp_path: Path) -> None:
    target = tiny.llama(n_blocks=4)
    model = target.write(tmp_path / "some-Q4_K_M.gguf")
    tiny_eagle3.drafter(layers=(1, 2, 4)).write(tmp_path / "eagle3-a.gguf")
    assert heads_beside(model) is None
    drafter = tiny_eagle3.drafter().write(tmp_path / "eagle3-some-Q8_0.gguf")
    assert heads_beside(model) == drafter
    heads = tiny.heads_for(target, hidden="post_norm").write(tmp_path / "mtp-x.gguf")
    assert heads_beside(model) == heads


@pytest.mark.parametrize("name", ["dflash-some.gguf", "some-DSpark.gguf"])
def test_a_block_drafter_is_found_after_heads(name: str, tmp_path: Path) -> None:
    target = tiny.llama(n_blocks=4)
    model = target.write(tmp_path / "some-Q4_K_M.gguf")
    tiny_block.dflash(layers=(1, 4)).write(tmp_path / "dflash-a.gguf")
    assert heads_beside(model) is None
    drafter = tiny_block.dspark().write(tmp_path / name)
    assert heads_beside(model) == drafter
    heads = tiny.heads_for(target, hidden="post_norm").write(tmp_path / "mtp-x.gguf")
    assert heads_beside(model) == heads


def test_files_of_others_are_passed_over(model: Path) -> None:
    tiny.heads_for(tiny.llama(seed=77), hidden="pre_norm").write(model.with_name("mtp-a.gguf"))
    model.with_name("mtp-b.gguf").write_bytes(b"GGUF, and no more")
    model.with_name("mtp-c.gguf").mkdir()
    SPECS["llama"]().write(model.with_name("some-mtp.gguf"))
    assert heads_beside(model) is None
    heads = SPECS["heads"]().write(model.with_name("z-mtp.gguf"))
    assert heads_beside(model) == heads


def test_other_names_say_nothing(model: Path) -> None:
    SPECS["heads"]().write(model.with_name("heads.gguf"))
    assert heads_beside(model) is None


def test_a_models_own_heads_win(tmp_path: Path) -> None:
    model = SPECS["qwen35"]().write(tmp_path / "m.gguf")
    heads = tiny.heads_for(tiny.qwen35(), hidden="post_norm")
    heads.write(tmp_path / "m-mtp.gguf")
    assert heads_beside(model) is None
