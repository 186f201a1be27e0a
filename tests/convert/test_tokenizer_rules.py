"""What a byte-level tokenizer.json says beside its vocabulary: normal forms, splits, look-ups."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtp_cli.engine.backend.model import Model
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.write import write
from mtp_convert.tokenizer.pretokenizers import KEY_NORMAL_FORM
from tests.convert.checkpoints import QWEN2_RULE, qwen3, write_checkpoint, write_tokenizer

LLAMA3_RULE = QWEN2_RULE.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
WORD = "zq"  # two letters, of which no merge makes one token


def planned(tmp_path: Path, change: Callable[[Any], None], rule: str = QWEN2_RULE) -> Plan:
    folder = write_checkpoint(tmp_path / "tiny", qwen3())
    write_tokenizer(folder, rule)
    data = json.loads((folder / "tokenizer.json").read_text())
    change(data)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return plan_checkpoint(open_checkpoint(folder), Options(outtype="f32"))


def normalized(*kinds: str) -> Callable[[Any], None]:
    node: Any = {"type": "Sequence", "normalizers": [{"type": kind} for kind in kinds]}
    return lambda data: data.update(normalizer=node)


def test_text_is_read_in_the_normal_form_that_the_tokenizer_asks_for(tmp_path: Path) -> None:
    """As file names of macOS come: letter and accent apart."""
    plan = planned(tmp_path, normalized("NFC"))
    write(plan, tmp_path / "x.gguf")
    model = Model(tmp_path / "x.gguf", no_alloc=True)
    composed, apart = "caf\u00e9", "cafe\u0301"
    read = [model.tokenize(t, add_special=False, parse_special=False) for t in (composed, apart)]
    assert read[0] == read[1]
    assert b"".join(model.piece(token, special=False) for token in read[1]) == composed.encode()
    model.close()


def test_without_one_it_is_read_as_it_is(tmp_path: Path) -> None:
    plan = planned(tmp_path, normalized())
    assert KEY_NORMAL_FORM not in plan.metadata
    write(plan, tmp_path / "x.gguf")
    model = Model(tmp_path / "x.gguf", no_alloc=True)
    ids = model.tokenize("e\u0301", add_special=False, parse_special=False)
    assert b"".join(model.piece(token, special=False) for token in ids) == "e\u0301".encode()
    model.close()


def level(**fields: Any) -> Callable[[Any], None]:
    return lambda data: data["pre_tokenizer"]["pretokenizers"][1].update(fields)


def split(**fields: Any) -> Callable[[Any], None]:
    return lambda data: data["pre_tokenizer"]["pretokenizers"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (normalized("Lowercase"), "a normalizer of the kind Lowercase, which llama.cpp lacks"),
        (normalized("NFC", "StripAccents"), "a normalizer of the kind StripAccents"),
        (normalized("NFKC", "NFC"), "a normalizer of the kind NFKC, NFC"),
        (level(add_prefix_space=True), "add_prefix_space: llama.cpp puts no space"),
        (split(behavior="Removed"), "splits with Removed: llama.cpp keeps every piece"),
        (split(behavior="Isolated", invert=True), "splits with Isolated, inverted"),
    ],
)
def test_what_llama_cpp_does_not_do_with_text_is_refused(
    change: Callable[[Any], None], said: str, tmp_path: Path
) -> None:
    with pytest.raises(MtpError, match=said):
        planned(tmp_path, change)


def test_a_split_may_be_written_the_other_way_round(tmp_path: Path) -> None:
    plan = planned(tmp_path, split(behavior="Removed", invert=True))
    assert plan.metadata["tokenizer.ggml.pre"].value == "qwen2"


def with_word(is_looked_up: bool) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        data["model"]["vocab"][WORD] = 300
        data["model"]["ignore_merges"] = is_looked_up

    return change


@pytest.mark.parametrize(
    ("rule", "is_looked_up", "readers"),
    [
        (QWEN2_RULE, True, ("tokenizer.json", "llama.cpp's qwen2")),
        (LLAMA3_RULE, False, ("llama.cpp's llama-bpe", "tokenizer.json")),
        (QWEN2_RULE, False, None),
        (LLAMA3_RULE, True, None),
    ],
)
def test_words_that_are_looked_up_by_one_and_not_the_other_are_noted(
    rule: str, is_looked_up: bool, readers: tuple[str, str] | None, tmp_path: Path
) -> None:
    notes = planned(tmp_path, with_word(is_looked_up), rule).notes
    expected = (
        f"1 tokens that no merge makes, {WORD!r} the first: {readers[0]} takes them for whole "
        f"words (ignore_merges), {readers[1]} does not: such words become other ids"
        if readers
        else None
    )
    assert list(notes) == ([expected] if expected else [])


def test_where_merges_make_every_token_nothing_is_noted(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        data["model"]["ignore_merges"] = True

    assert list(planned(tmp_path, change).notes) == []
