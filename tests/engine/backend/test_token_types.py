"""Kinds and ends of tokens, in files whose spellings llama.cpp has its own mind about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.token_types import KEY_END_IDS
from tests.engine import vocabularies
from tests.engine.vocabularies import CONTROL, EOS, IDS, NORMAL, USER_DEFINED

Build = Callable[..., dict[str, Any]]
KINDS = [vocabularies.spm, vocabularies.bpe]
NO_OTHERS: Mapping[str, int] = {}
END_OF_TEXT = IDS[vocabularies.END]  # what eos_token_id names in these vocabularies


def loaded(
    path: Path,
    vocabulary: dict[str, Any],
    template: str | None = None,
    types: Mapping[str, int] = NO_OTHERS,
) -> Model:
    """types: of tokens by their spelling, others than the vocabulary has."""
    numbers = list(vocabulary["tokenizer.ggml.token_type"])
    for text, kind in types.items():
        numbers[IDS[text]] = kind
    vocabulary["tokenizer.ggml.token_type"] = numbers
    return Model(vocabularies.write(path / "m.gguf", vocabulary, template), no_alloc=True)


def ends(model: Model) -> set[int]:
    return {token for token in range(model.n_vocab) if model.is_eog(token)}


@pytest.mark.parametrize("build", KINDS)
@pytest.mark.parametrize("kind", [USER_DEFINED, NORMAL])
def test_a_tag_is_no_end_and_is_seen(build: Build, kind: int, tmp_path: Path) -> None:
    model = loaded(tmp_path, build(), "{{ messages }}", types={EOS: kind})
    assert ends(model) == {END_OF_TEXT}
    assert model.piece(IDS[EOS], special=False) == b"</s>"
    assert model.types.kind(IDS[EOS]) == ("text" if kind == NORMAL else "user-defined")


@pytest.mark.parametrize("build", KINDS)
def test_a_control_token_ends_by_its_spelling(build: Build, tmp_path: Path) -> None:
    model = loaded(tmp_path, build())
    assert ends(model) == {END_OF_TEXT, IDS[EOS]}
    assert model.piece(IDS[EOS], special=False) == b""


def test_a_user_defined_end_of_turn_ends_where_the_template_spells_it(tmp_path: Path) -> None:
    model = loaded(tmp_path, vocabularies.spm(), "{{ messages }}</s>", types={EOS: USER_DEFINED})
    assert ends(model) == {END_OF_TEXT, IDS[EOS]}


@pytest.mark.parametrize("key", ["eot_token_id", "eom_token_id"])
def test_every_id_that_the_file_names_ends(key: str, tmp_path: Path) -> None:
    vocabulary = vocabularies.spm()
    vocabulary[f"tokenizer.ggml.{key}"] = IDS["<b>"]
    model = loaded(tmp_path, vocabulary, types={EOS: USER_DEFINED})
    assert ends(model) == {END_OF_TEXT, IDS["<b>"]}


@pytest.mark.parametrize("more", [[IDS["<|start|>"], IDS["<b>"]], [IDS["<b>"], 1 << 20, -1]])
def test_further_ends_come_in_an_array(more: list[int], tmp_path: Path) -> None:
    vocabulary = vocabularies.bpe()
    vocabulary[KEY_END_IDS] = np.array(more, np.int32)
    model = loaded(tmp_path, vocabulary, types={EOS: USER_DEFINED})
    assert ends(model) == {END_OF_TEXT, *(token for token in more if 0 <= token < model.n_vocab)}


def test_without_types_in_the_file_llama_cpp_decides(tmp_path: Path) -> None:
    vocabulary = vocabularies.bpe()
    del vocabulary["tokenizer.ggml.token_type"]
    path = vocabularies.write(tmp_path / "m.gguf", vocabulary)
    model = Model(path, no_alloc=True)
    assert ends(model) == {END_OF_TEXT, IDS[EOS]}
    assert model.types.kind(IDS[EOS]) == "control"
    assert model.types.kind(IDS["<b>"]) == "text"


def of_no_names(build: Build) -> dict[str, Any]:
    """A vocabulary whose file names neither BOS nor EOS."""
    vocabulary = build()
    for name in ("bos", "eos"):
        del vocabulary[f"tokenizer.ggml.{name}_token_id"]
    return vocabulary


def test_a_bpe_that_names_no_ends_has_none_of_llama_cpp(tmp_path: Path) -> None:
    """There it would be the token 11 for both, which a template may well spell."""
    vocabulary = of_no_names(vocabularies.bpe)
    vocabulary["tokenizer.ggml.pre"] = "llama-bpe"  # which asks for BOS
    by_chance = vocabulary["tokenizer.ggml.tokens"][11]
    model = loaded(tmp_path, vocabulary, "{{ messages }}" + by_chance)
    assert (model.special_text("bos"), model.special_text("eos")) == ("", "")
    assert model.first_token is None
    assert ends(model) == {IDS[EOS], IDS["<|end|>"]}  # control tokens that are spelled as ends


def test_llama_2_s_ids_are_meant_where_they_are_control_tokens(tmp_path: Path) -> None:
    model = loaded(tmp_path, of_no_names(vocabularies.spm))
    assert (model.special_text("bos"), model.special_text("eos")) == ("<s>", "</s>")
    assert model.first_token == IDS[vocabularies.BOS]
    types = {"<s>": NORMAL, "</s>": NORMAL}
    model = loaded(tmp_path, of_no_names(vocabularies.spm), types=types)
    assert (model.special_text("bos"), model.special_text("eos")) == ("", "")


def test_unknown_tokens_count_as_control(tmp_path: Path) -> None:
    model = loaded(tmp_path, vocabularies.spm(), types={"<b>": CONTROL})
    assert model.types.kind(IDS["<unk>"]) == model.types.kind(IDS["<b>"]) == "control"
