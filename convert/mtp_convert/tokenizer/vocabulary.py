"""A checkpoint's tokenizer into GGUF metadata: byte-level BPE and SentencePiece.

Owns reading tokenizer.json; tokenizer.model is read by `protobuf`, tekken.json by `tekken`, rules
of splitting by `pretokenizers`, special tokens, merges and the chat template by `special`.
Knows nothing of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import TokenType

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import read_json
from mtp_convert.families.rules import Family
from mtp_convert.files import reading_values
from mtp_convert.gguf.header import Pair
from mtp_convert.gguf.metadata import pairs
from mtp_convert.tokenizer import characters, tekken
from mtp_convert.tokenizer.pretokenizers import (
    KEY_NORMAL_FORM,
    lookup_note,
    named,
    normal_form,
    pre_tokenizer,
    steps,
)
from mtp_convert.tokenizer.protobuf import read_pieces, read_rules
from mtp_convert.tokenizer.special import ends_metadata, special_metadata

_ADDED_SCORE = -1000.0  # of tokens beside the pieces, as llama.cpp's converter has it
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")

_BPE = 2
_KINDS = {1: "unigram", 3: "word", 4: "char"}
# Where a space goes in front of a text, in tokenizers' words: "first" for where nothing stands
# before it, "always" after special tokens too, in both cases unless it begins with one. The key is
# ours: llama.cpp adds one whatever there is.
KEY_SPACE_SCHEME = "tokenizer.ggml.space_prefix_scheme"

NO_VOCABULARY = {"tokenizer.ggml.model": "no_vocab"}


def tokenizer_metadata(
    folder: Path, n_vocab: int, family: Family, pre: str | None, notes: list[str]
) -> dict[str, Pair]:
    """The tokenizer.* pairs of a checkpoint; a folder without tokenizer gives "no_vocab".

    notes: gets what was left out
    """
    with reading_values(f"{folder}: one of the tokenizer's files"):
        found = _metadata(folder, _Empty(n_vocab, notes), family, pre)
        if found == NO_VOCABULARY:
            return pairs(found)
        suppressed = _suppressed(folder, n_vocab) if family.suppresses else {}
        return pairs({**found, **ends_metadata(folder, found, notes), **suppressed})


def _metadata(folder: Path, empty: _Empty, family: Family, pre: str | None) -> dict[str, Any]:
    if (folder / "tokenizer.json").is_file():
        data = read_json(folder / "tokenizer.json")
        if not _is_bpe(data.get("model")):
            raise MtpError(f"{folder / 'tokenizer.json'}: expected a BPE model")
        if "ByteLevel" in [kind for kind, _ in steps(data.get("pre_tokenizer"))]:
            return _byte_level(folder, data, empty, family, pre)
        if family.character_tokenizer:
            return _characters(folder, data, empty, family)
    elif (folder / tekken.NAME).is_file():
        return _tekken(folder, empty, family, pre)
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece(folder, empty)
    if (folder / "tokenizer.json").is_file():
        return _from_merges(folder, data, empty)
    return dict(NO_VOCABULARY)


def _suppressed(folder: Path, n_vocab: int) -> dict[str, Any]:
    file = folder / "generation_config.json"
    ids = (read_json(file).get("suppress_tokens") if file.is_file() else None) or []
    wrong = [i for i in ids if type(i) is not int or not 0 <= i < n_vocab]
    if wrong:
        raise MtpError(
            f"{file}: suppress_tokens: {str(wrong[0])[:40]}: expected ids below {n_vocab}"
        )
    return {"tokenizer.ggml.suppress_tokens": list(ids)} if ids else {}


def _is_bpe(model: object) -> bool:
    return isinstance(model, dict) and model.get("type") in ("BPE", None)


def _taken_vocab(data: dict[str, Any]) -> dict[str, int]:
    """The vocabulary out of a tokenizer.json, which loses it and the merges with it.

    gguf-py parses the file once more, for the merges; a large one takes 200 MB each time.
    """
    found: dict[str, int] = data.pop("model").get("vocab", {})
    return found


def _byte_level(
    folder: Path, data: dict[str, Any], empty: _Empty, family: Family, pre: str | None
) -> dict[str, Any]:
    file, (texts, kinds) = folder / "tokenizer.json", empty.lists()
    name, form = pre or pre_tokenizer(folder, data, family), normal_form(file, data)
    if (note := lookup_note(data, name)) is not None:
        empty.notes.append(note)
    for text, i in _taken_vocab(data).items():
        _place(file, texts, kinds, i, text, TokenType.NORMAL)
    for added in data.get("added_tokens") or []:
        empty.place_added(texts, kinds, added["id"], added["content"], bool(added.get("special")))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        **({KEY_NORMAL_FORM: form} if form else {}),
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": kinds,
        **special_metadata(folder, texts, family, load_merges=True),
    }


def _characters(
    folder: Path, data: dict[str, Any], empty: _Empty, family: Family
) -> dict[str, Any]:
    """BPE over characters, with bytes as a last resort: Gemma 4's kind."""
    file, (texts, kinds) = folder / "tokenizer.json", empty.lists()
    for text, i in _taken_vocab(data).items():
        kind = TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL
        _place(file, texts, kinds, i, text, kind)
    for added in data.get("added_tokens") or []:
        i, text = added["id"], added["content"]
        if empty.is_beyond(i, text):
            continue
        if added.get("special") or texts[i] != text:
            special = bool(added.get("special"))
            kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
            _place(file, texts, kinds, i, text, kind)
        if text in family.visible_tokens:
            kinds[i] = int(TokenType.USER_DEFINED)
    return {
        "tokenizer.ggml.model": family.character_tokenizer,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.full(empty.n_vocab, -1000.0, np.float32),
        "tokenizer.ggml.token_type": kinds,
        **special_metadata(folder, texts, family, load_merges=True),
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": True,
    }


def _tekken(folder: Path, empty: _Empty, family: Family, pre: str | None) -> dict[str, Any]:
    """Mistral's own file, where tokenizer.json is missing."""
    file, (texts, kinds) = folder / tekken.NAME, empty.lists()
    found = tekken.read_tekken(file)
    for i, text in enumerate(found.texts):
        is_special = i < len(found.special)
        kind = TokenType.CONTROL if is_special else TokenType.NORMAL
        _place(file, texts, kinds, i, text, kind)
    roles = {"bos": "<s>", "eos": "</s>", "unknown": "<unk>", "padding": "<pad>"}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre or named(file, (found.pattern,), family),
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.zeros(empty.n_vocab, np.float32),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": list(found.merges()),
        **special_metadata(folder, texts, None, load_merges=False),
        **{
            f"tokenizer.ggml.{role}_token_id": found.special.index(text)
            for role, text in roles.items()
            if text in found.special
        },
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def _sentencepiece(folder: Path, empty: _Empty) -> dict[str, Any]:
    (texts, kinds), scores = empty.lists(), empty.scores()
    pieces = read_pieces(folder / "tokenizer.model")
    for i, piece in enumerate(pieces[: empty.n_vocab]):
        texts[i], kinds[i], scores[i] = piece.text, piece.kind, piece.score
    for i, text, special in _added(folder):
        if empty.place_added(texts, kinds, i, text, special):
            scores[i] = _ADDED_SCORE
    return _as_sentencepiece(folder, texts, kinds, scores) | _reading(folder, empty.notes)


def _reading(folder: Path, notes: list[str]) -> dict[str, Any]:
    """How a tokenizer.model reads text, where llama.cpp's SentencePiece would do otherwise."""
    file = folder / "tokenizer.model"
    rules = read_rules(file)
    if rules.kind not in (None, _BPE):
        raise MtpError(
            f"{file}: a SentencePiece model of the kind {_KINDS.get(rules.kind or 0, rules.kind)}: "
            "llama.cpp would read text with it as with a BPE, and give other ids"
        )
    changes = [f"characters by {rules.normalizer}"] if rules.normalizer else []
    changes += ["runs of spaces to one"] if rules.merges_spaces else []
    if changes:
        notes.append(
            f"{file.name} changes {' and '.join(changes)}; llama.cpp reads texts as they are"
        )
    if (folder / "tokenizer.json").is_file():
        return _prefix(characters.space_scheme(read_json(folder / "tokenizer.json")))
    config = folder / "tokenizer_config.json"
    said = read_json(config) if config.is_file() else {}
    if not said.get("add_prefix_space", rules.adds_space):
        return _prefix("never")
    return _prefix("first" if said.get("legacy") is False else None)


def _prefix(scheme: str | None) -> dict[str, Any]:
    """The keys of a space in front of texts; llama.cpp has one for all texts or for none."""
    if scheme == "never":
        return {"tokenizer.ggml.add_space_prefix": False}
    return {} if scheme is None else {KEY_SPACE_SCHEME: scheme}


def _from_merges(folder: Path, data: dict[str, Any], empty: _Empty) -> dict[str, Any]:
    """A tokenizer.json of SentencePiece's kind, without the tokenizer.model that it came from."""
    file, (texts, kinds), scores = folder / "tokenizer.json", empty.lists(), empty.scores()
    adds_space = characters.adds_space_prefix(file, data)
    model: dict[str, Any] = data["model"]
    if not model.get("byte_fallback"):
        raise MtpError(f"{file}: neither byte-level BPE nor beside a tokenizer.model")
    for text, i in model.get("vocab", {}).items():
        kind = TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL
        _place(file, texts, kinds, i, text, kind)
        scores[i] = 0.0
    for i, text, special in _added(folder):
        if empty.place_added(texts, kinds, i, text, special):
            scores[i] = _ADDED_SCORE
    if model.get("unk_token") in texts:
        kinds[texts.index(model["unk_token"])] = int(TokenType.UNKNOWN)
    ids = {text: i for i, text in enumerate(texts) if kinds[i] == TokenType.NORMAL}
    for text, score in characters.scores_of(file, model, ids).items():
        if text in ids:
            scores[ids[text]] = score
    prefix = {"tokenizer.ggml.add_space_prefix": adds_space}
    prefix |= _prefix(characters.space_scheme(data))
    return _as_sentencepiece(folder, texts, kinds, scores) | prefix


def _as_sentencepiece(
    folder: Path, texts: list[str], kinds: list[int], scores: npt.NDArray[np.float32]
) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        **special_metadata(folder, texts, None, load_merges=False),
    }


def _added(folder: Path) -> Iterator[tuple[int, str, bool]]:
    """Ids beside the model's own pieces, from each of the files that name some."""
    if (folder / "tokenizer.json").is_file():
        for entry in read_json(folder / "tokenizer.json").get("added_tokens") or []:
            yield int(entry["id"]), entry["content"], bool(entry.get("special"))
    if (folder / "added_tokens.json").is_file():
        for text, i in read_json(folder / "added_tokens.json").items():
            yield int(i), text, False
    if (folder / "tokenizer_config.json").is_file():
        decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        for i, fields in decoder.items():
            yield int(i), fields["content"], bool(fields.get("special"))


@dataclass(frozen=True)
class _Empty:
    """A vocabulary of padding, to be filled: the embedding often has more rows than the tokenizer.

    It may have fewer, too: a padding token that a fine-tune added is never computed with, and gets
    no row. Such tokens are left out, with a note.
    """

    n_vocab: int
    notes: list[str]

    def lists(self) -> tuple[list[str], list[int]]:
        """Texts and kinds."""
        texts = [f"[PAD{i}]" for i in range(self.n_vocab)]
        return texts, [int(TokenType.UNUSED)] * self.n_vocab

    def scores(self) -> npt.NDArray[np.float32]:
        return np.full(self.n_vocab, -10000.0, np.float32)

    def is_beyond(self, i: int, text: str) -> bool:
        """Whether an added token has no row; noted."""
        if 0 <= i < self.n_vocab:
            return False
        note = f"token {text!r} is left out: its id {i} is none of the embedding's {self.n_vocab}"
        if note not in self.notes:
            self.notes.append(note)
        return True

    def place_added(
        self, texts: list[str], kinds: list[int], i: int, text: str, special: bool
    ) -> bool:
        """Put an added token in its place; False when it has none."""
        if self.is_beyond(i, text):
            return False
        control = special or _looks_special(text)
        kinds[i] = int(TokenType.CONTROL if control else TokenType.USER_DEFINED)
        texts[i] = text if control else text.replace("\u2581", " ")
        return True


def _place(
    file: Path, texts: list[str], kinds: list[int], i: int, text: str, kind: TokenType
) -> None:
    if not 0 <= i < len(texts):
        raise MtpError(
            f"{file}: token {text!r} has id {i}, config.json's vocab_size is {len(texts)}"
        )
    texts[i], kinds[i] = text, int(kind)


def _looks_special(text: str) -> bool:
    """Control tokens that their own files do not mark as such, as llama.cpp sees them."""
    if text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    edges = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return any(text.startswith(start) and text.endswith(end) for start, end in edges)
