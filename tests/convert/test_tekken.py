"""Mistral's tekken.json: the ids that merging by rank gives, and how the file can be wrong."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, TokenType

from mtp_cli.engine import Engine
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.write import write
from mtp_convert.tokenizer.tekken import read_tekken
from tests.convert.checkpoints import N_VOCAB, mistral, write_checkpoint

UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
START = r"[^\r\n\p{L}\p{N}]?"
PATTERN = (
    f"{START}{UPPER}*{LOWER}+|{START}{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
N_SPECIAL = 22  # two more than old files name
# "abc" can be merged in two ways, of which the ranks of the parts choose.
WORDS = ["th", " t", "bc", "ab", "the", "abc", "in", "ing", " the", "ü", "日"]
PIECES = [bytes([i]) for i in range(256)] + [word.encode() for word in WORDS]
TEXT = "The thing in the abc bcab für 日本 inning\n  thethe 12"


def tekken(**config: Any) -> dict[str, Any]:
    listed = [
        {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
        for rank, piece in enumerate([*PIECES, b"beyond"])  # more than are used, as published
    ]
    return {
        "config": {
            "pattern": PATTERN, "num_vocab_tokens": len(listed), "version": "v3",
            "default_vocab_size": N_SPECIAL + len(PIECES),
            "default_num_special_tokens": N_SPECIAL, **config,
        },
        "vocab": listed,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_checkpoint(tmp_path / "x", mistral(), tokenizer=False)
    (made / "tekken.json").write_text(json.dumps(tekken()))
    return made


def merged(text: bytes) -> list[int]:
    """A word's ids: of all neighbours those with the least rank together are joined, in turn."""
    ranks = {piece: rank for rank, piece in enumerate(PIECES)}
    parts = [bytes([byte]) for byte in text]
    while True:
        unions = [ranks.get(a + b, 1 << 30) for a, b in itertools.pairwise(parts)]
        if not unions or min(unions) == 1 << 30:
            return [N_SPECIAL + ranks[part] for part in parts]
        i = unions.index(min(unions))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def test_texts_become_the_ids_that_ranks_give(folder: Path, tmp_path: Path) -> None:
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="q8_0")), tmp_path / "x.gguf")
    # What the pattern splits TEXT into.
    words = re.findall(r"\n|\d| (?= )|[ ]?[^\W\d]+| ", TEXT)
    assert "".join(words) == TEXT
    wanted = [i for word in words for i in merged(word.encode())]
    with Engine.open(tmp_path / "x.gguf", n_ctx=64, n_gpu_layers=0) as engine:
        assert engine.tokenize(TEXT, add_special=False, parse_special=False) == wanted
        ids = engine.tokenize("[INST]th</s>", add_special=True, parse_special=True)
    assert ids == [1, 3, *merged(b"th"), 2]


def test_what_the_file_says_of_it(folder: Path, tmp_path: Path) -> None:
    template = "{{ messages }}"
    (folder / "chat_template.jinja").write_text(template)
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="q8_0")), tmp_path / "x.gguf")
    fields = {
        key.removeprefix("tokenizer.ggml."): field.contents()
        for key, field in GGUFReader(tmp_path / "x.gguf").fields.items()
    }
    assert (fields["model"], fields["pre"]) == ("gpt2", "tekken")
    assert (fields["bos_token_id"], fields["eos_token_id"]) == (1, 2)
    assert (fields["unknown_token_id"], fields["padding_token_id"]) == (0, 11)
    assert (fields["add_bos_token"], fields["add_eos_token"]) == (True, False)
    assert fields["tokenizer.chat_template"] == template
    texts, kinds = fields["tokens"], fields["token_type"]
    assert texts[19:23] == ["[TOOL_CONTENT]", "<SPECIAL_20>", "<SPECIAL_21>", "Ā"]
    assert kinds[21:23] == [TokenType.CONTROL, TokenType.NORMAL]
    n_used = N_SPECIAL + len(PIECES)
    assert texts[n_used:] == [f"[PAD{i}]" for i in range(n_used, N_VOCAB)]
    assert [m for m in fields["merges"] if m.replace(" ", "") == "abc"] == ["a bc", "ab c"]


def test_special_tokens_that_the_file_names(folder: Path) -> None:
    data = tekken() | {"special_tokens": [{"rank": 0, "token_str": "<s>", "is_control": True}]}
    (folder / "tekken.json").write_text(json.dumps(data))
    metadata = plan_checkpoint(open_checkpoint(folder), Options()).metadata
    assert metadata["tokenizer.ggml.bos_token_id"].value == 0
    assert metadata["tokenizer.ggml.tokens"].value[1] == "<SPECIAL_1>"
    assert "tokenizer.ggml.padding_token_id" not in metadata


def test_tokenizer_json_comes_first(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "x", mistral())
    (folder / "tekken.json").write_text("not even JSON")
    metadata = plan_checkpoint(open_checkpoint(folder), Options()).metadata
    assert metadata["tokenizer.ggml.pre"].value == "qwen2"


def shuffled(data: dict[str, Any]) -> None:
    data["vocab"][3], data["vocab"][4] = data["vocab"][4], data["vocab"][3]


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no config": (lambda data: data.pop("config"), "value of an unexpected kind"),
    "no vocabulary": (lambda data: data.pop("vocab"), "value of an unexpected kind"),
    "too few pieces": (lambda data: data["vocab"].clear(), "expected 267 pieces .* found 0"),
    "fewer than the bytes": (
        lambda data: data["config"].update(default_vocab_size=100), "at least the 256 bytes"),
    "pieces out of order": (shuffled, "expected different pieces by rank"),
    "a piece twice": (
        lambda data: data["vocab"][260].update(token_bytes="dGg="), "different pieces by rank"),
    "a piece that is no base64": (
        lambda data: data["vocab"][260].update(token_bytes="x"), "unexpected kind"),
    "a number for a list": (lambda data: data.update(vocab=3), "unexpected kind"),
    "too many special tokens": (
        lambda data: data.update(special_tokens=[{"token_str": str(i)} for i in range(30)]),
        "special_tokens: expected 22 at most, found 30"),
    "more ids than config.json has": (
        lambda data: data["config"].update(default_num_special_tokens=60, default_vocab_size=327),
        "token '.*' has id 320, config.json's vocab_size is 320"),
    "another pattern": (
        lambda data: data["config"].update(pattern="[a-z]+"), "name it with --pre"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_file_that_is_wrong(case: str, folder: Path) -> None:
    damage, message = DAMAGE[case]
    data = tekken()
    damage(data)
    (folder / "tekken.json").write_text(json.dumps(data))
    with pytest.raises(MtpError, match=message) as caught:
        plan_checkpoint(open_checkpoint(folder), Options())
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_vocabulary_in_order(folder: Path) -> None:
    found = read_tekken(folder / "tekken.json")
    assert found.pieces == tuple(PIECES)
    assert len(found.texts) == len({*found.texts}) == N_SPECIAL + len(PIECES)
