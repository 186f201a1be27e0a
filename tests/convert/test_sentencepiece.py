"""What a tokenizer.model and the files beside it say of reading text, beyond their pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtp_cli.conversation.prompt import PromptReader
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.write import write
from mtp_convert.tokenizer.vocabulary import KEY_SPACE_SCHEME
from tests.convert.checkpoints import smollm, write_checkpoint
from tests.convert.checkpoints_meta import write_sentencepiece
from tests.engine.vocabularies import VocabularyTokenizer

PREFIX = "tokenizer.ggml.add_space_prefix"
UNIGRAM, BPE, CHAR = 1, 2, 4
SPACE = "\u2581"


def varint_field(number: int, value: int) -> bytes:
    return bytes([number << 3, value])


def bytes_field(number: int, raw: bytes) -> bytes:
    return bytes([number << 3 | 2, len(raw)]) + raw


def specs(
    kind: int = BPE,
    *,
    name: str = "identity",
    charsmap: bytes = b"",
    dummy: int = 1,
    extra: int = 0,
) -> bytes:
    """The specs of trainer and normalizer, as SentencePiece writes them."""
    normalizer = bytes_field(1, name.encode()) + bytes_field(2, charsmap)
    normalizer += varint_field(3, dummy) + varint_field(4, extra) + varint_field(5, 1)
    return bytes_field(2, varint_field(3, kind)) + bytes_field(3, normalizer)


def planned(tmp_path: Path, more: bytes, *, fast: Any = None, **config: Any) -> Plan:
    folder = write_checkpoint(tmp_path / "tiny", smollm(), tokenizer=False)
    write_sentencepiece(folder / "tokenizer.model")
    with (folder / "tokenizer.model").open("ab") as file:
        file.write(more)
    said = {"bos_token": "<s>", "eos_token": "</s>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    if fast is not None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE"}, **fast}))
    return plan_checkpoint(open_checkpoint(folder), Options(outtype="f32"))


@pytest.mark.parametrize(("kind", "name"), [(UNIGRAM, "unigram"), (CHAR, "char")])
def test_a_model_of_another_kind_is_refused(kind: int, name: str, tmp_path: Path) -> None:
    """llama.cpp joins neighbours by score, where a unigram model weighs whole texts."""
    with pytest.raises(MtpError, match=f"of the kind {name}: llama.cpp would read text with it"):
        planned(tmp_path, specs(kind))


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (specs(), ""),
        (b"", ""),
        (specs(name="nmt_nfkc"), ""),  # a name without a table changes nothing
        (specs(name="nmt_nfkc", charsmap=b"table"), "changes characters by nmt_nfkc; llama.cpp"),
        (specs(extra=1), "changes runs of spaces to one; llama.cpp reads texts as they are"),
    ],
)
def test_what_it_does_to_characters_is_noted(more: bytes, note: str, tmp_path: Path) -> None:
    notes = planned(tmp_path, more).notes
    assert len(notes) == bool(note)
    assert note in "".join(notes)


METASPACE = {"type": "Metaspace", "replacement": SPACE, "split": False}
LEGACY = {"normalizer": {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": SPACE},
    {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "beside", "keys"),
    [
        (specs(), {}, {}),
        (specs(dummy=0), {}, {PREFIX: False}),
        (specs(), {"add_prefix_space": False}, {PREFIX: False}),
        (specs(), {"legacy": False}, {KEY_SPACE_SCHEME: "first"}),
        (specs(), {"fast": LEGACY, "legacy": False}, {}),
        (specs(), {"fast": {"pre_tokenizer": {**METASPACE, "prepend_scheme": "first"}}},
         {KEY_SPACE_SCHEME: "first"}),
        (specs(), {"fast": {"pre_tokenizer": {**METASPACE, "prepend_scheme": "never"}}},
         {PREFIX: False}),
        (specs(), {"fast": {"pre_tokenizer": {**METASPACE, "add_prefix_space": True}}},
         {KEY_SPACE_SCHEME: "always"}),
        (specs(), {"fast": {"pre_tokenizer": None}}, {PREFIX: False}),
    ],
)  # fmt: skip
def test_where_a_space_goes_in_front(
    more: bytes, beside: dict[str, Any], keys: dict[str, Any], tmp_path: Path
) -> None:
    metadata = planned(tmp_path, more, **beside).metadata
    found = {key: metadata[key].value for key in (PREFIX, KEY_SPACE_SCHEME) if key in metadata}
    assert found == keys


# As the library tokenizers cuts them, for each scheme: what stands before each piece's text.
READ = {
    "first": {"in": "_in", " in": "_in", "<s>in": "<s>in", "<s> in": "<s>_in"},
    "always": {"in": "_in", " in": "_in", "<s>in": "<s>_in", "<s> in": "<s>_in"},
    "": {"in": "_in", " in": "__in", "<s>in": "<s>_in", "<s> in": "<s>__in"},
}


@pytest.mark.parametrize("scheme", READ)
def test_texts_are_read_so(scheme: str, tmp_path: Path) -> None:
    fast = {"pre_tokenizer": {**METASPACE, "prepend_scheme": scheme}} if scheme else LEGACY
    write(planned(tmp_path, specs(), fast=fast), tmp_path / "x.gguf")
    tokenizer = VocabularyTokenizer(tmp_path / "x.gguf")
    tokenizer.first_token = None
    reader = PromptReader(tokenizer, "")
    for text, wanted in READ[scheme].items():
        pieces = [tokenizer.piece(token, special=True).decode() for token in reader.read(text)]
        assert "".join(pieces).replace(" ", "_") == wanted, text
