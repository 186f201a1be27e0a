"""A checkpoint's tokenizer into GGUF metadata: byte-level BPE and SentencePiece.

Owns reading tokenizer.json, and naming the pre-tokenizer by its rules; tokenizer.model is read by
`protobuf`, tekken.json by `tekken`, and special tokens, merges and the chat template by gguf-py.
Knows nothing of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, SpecialVocab, TokenType

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import read_json
from mtp_convert.families.rules import Family
from mtp_convert.tokenizer import tekken
from mtp_convert.tokenizer.protobuf import Piece, read_pieces

# The splitting rules of tokenizer.json, in order, and llama.cpp's names for them. "ByteLevel" is
# GPT-2's own rule; "digits" are single digits. The first name is used unless the family says.
_GPT2 = "ByteLevel"
_CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_PRE_TOKENIZERS: dict[tuple[str, ...], tuple[str, ...]] = {
    (_CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST,): ("llama-bpe", "glm4"),
    (_CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST,): ("qwen2",),
    (
        _CASES + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ): ("qwen35",),
    (
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ): ("deepseek-v3",),
    (
        f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*" + r"|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ): ("tekken",),
    ("digits", _GPT2): ("smollm",),
    (_GPT2,): ("gpt-2",),
}  # fmt: skip

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")

NO_VOCABULARY = {"tokenizer.ggml.model": "no_vocab"}


def tokenizer_metadata(
    folder: Path, n_vocab: int, family: Family, pre: str | None = None
) -> dict[str, Any]:
    """The tokenizer.* pairs of a checkpoint; a folder without tokenizer gives "no_vocab"."""
    try:
        found = _metadata(folder, n_vocab, family, pre)
        return {**found, **_suppressed(folder, n_vocab)} if family.suppresses else found
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise MtpError(
            f"{folder}: the tokenizer's files hold a value of an unexpected kind: {error}"
        ) from error


def _metadata(folder: Path, n_vocab: int, family: Family, pre: str | None) -> dict[str, Any]:
    if (folder / "tokenizer.json").is_file():
        data = read_json(folder / "tokenizer.json")
        if not _is_bpe(data.get("model")):
            raise MtpError(f"{folder / 'tokenizer.json'}: expected a BPE model")
        if "ByteLevel" in [kind for kind, _ in _steps(data.get("pre_tokenizer"))]:
            return _byte_level(folder, data, n_vocab, family, pre)
        if family.character_tokenizer:
            return _characters(folder, data, n_vocab, family)
    elif (folder / tekken.NAME).is_file():
        return _tekken(folder, n_vocab, family, pre)
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece(folder, n_vocab, read_pieces(folder / "tokenizer.model"))
    if (folder / "tokenizer.json").is_file():
        raise MtpError(
            f"{folder / 'tokenizer.json'}: neither byte-level BPE nor beside a tokenizer.model"
        )
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
    folder: Path, data: dict[str, Any], n_vocab: int, family: Family, pre: str | None
) -> dict[str, Any]:
    file, (texts, kinds) = folder / "tokenizer.json", _empty(n_vocab)
    for text, i in _taken_vocab(data).items():
        _place(file, texts, kinds, i, text, TokenType.NORMAL)
    for added in data.get("added_tokens") or []:
        text = added["content"]
        special = added.get("special") or _looks_special(text)
        kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
        text = text if special else text.replace("\u2581", " ")
        _place(file, texts, kinds, added["id"], text, kind)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre or pre_tokenizer(folder, data, family),
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": kinds,
        **_special(folder, texts, family, load_merges=True),
    }


def _characters(folder: Path, data: dict[str, Any], n_vocab: int, family: Family) -> dict[str, Any]:
    """BPE over characters, with bytes as a last resort: Gemma 4's kind."""
    file, (texts, kinds) = folder / "tokenizer.json", _empty(n_vocab)
    for text, i in _taken_vocab(data).items():
        kind = TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL
        _place(file, texts, kinds, i, text, kind)
    for added in data.get("added_tokens") or []:
        i, text = added["id"], added["content"]
        known = 0 <= i < n_vocab and texts[i] == text
        if added.get("special") or not known:
            special = bool(added.get("special"))
            kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
            _place(file, texts, kinds, i, text, kind)
        if text in family.visible_tokens:
            kinds[i] = int(TokenType.USER_DEFINED)
    return {
        "tokenizer.ggml.model": family.character_tokenizer,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.full(n_vocab, -1000.0, np.float32),
        "tokenizer.ggml.token_type": kinds,
        **_special(folder, texts, family, load_merges=True),
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": True,
    }


def _tekken(folder: Path, n_vocab: int, family: Family, pre: str | None) -> dict[str, Any]:
    """Mistral's own file, where tokenizer.json is missing."""
    file, (texts, kinds) = folder / tekken.NAME, _empty(n_vocab)
    found = tekken.read_tekken(file)
    for i, text in enumerate(found.texts):
        is_special = i < len(found.special)
        kind = TokenType.CONTROL if is_special else TokenType.NORMAL
        _place(file, texts, kinds, i, text, kind)
    roles = {"bos": "<s>", "eos": "</s>", "unknown": "<unk>", "padding": "<pad>"}
    template = folder / "chat_template.jinja"  # gguf-py looks there for a tokenizer_config.json's
    return {
        **({"tokenizer.chat_template": template.read_text("utf-8")} if template.is_file() else {}),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre or _named(file, (found.pattern,), family),
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.zeros(n_vocab, np.float32),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": list(found.merges()),
        **_special(folder, texts, None, load_merges=False),
        **{
            f"tokenizer.ggml.{role}_token_id": found.special.index(text)
            for role, text in roles.items()
            if text in found.special
        },
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def _sentencepiece(folder: Path, n_vocab: int, pieces: list[Piece]) -> dict[str, Any]:
    texts, kinds = _empty(n_vocab)
    scores = np.full(n_vocab, -10000.0, np.float32)
    for i, piece in enumerate(pieces[:n_vocab]):
        texts[i], kinds[i], scores[i] = piece.text, piece.kind, piece.score
    for i, text, special in _added(folder):
        if i < n_vocab:
            control = special or _looks_special(text)
            kinds[i] = TokenType.CONTROL if control else TokenType.USER_DEFINED
            texts[i] = text if control else text.replace("\u2581", " ")
            scores[i] = -1000.0
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        **_special(folder, texts, None, load_merges=False),
    }


def _added(folder: Path) -> Iterator[tuple[int, str, bool]]:
    if (folder / "added_tokens.json").is_file():
        for text, i in read_json(folder / "added_tokens.json").items():
            yield int(i), text, False
    if (folder / "tokenizer_config.json").is_file():
        decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        for i, fields in decoder.items():
            yield int(i), fields["content"], bool(fields.get("special"))


def _empty(n_vocab: int) -> tuple[list[str], list[int]]:
    """A vocabulary of padding: the embedding often has more rows than the tokenizer."""
    return [f"[PAD{i}]" for i in range(n_vocab)], [int(TokenType.UNUSED)] * n_vocab


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


def _special(
    folder: Path, texts: list[str], family: Family | None, load_merges: bool
) -> dict[str, Any]:
    vocab = SpecialVocab(folder, load_merges=load_merges, n_vocab=len(texts))
    for role, text in family.special_tokens if family else ():
        if text in texts:
            vocab.special_token_ids[role] = texts.index(text)
    sink = GGUFWriter(None, "llama")  # never written: it names the keys
    vocab.add_to_gguf(sink, quiet=True)
    found = {key: value.value for key, value in sink.kv_data[0].items()}
    return {key: found[key] for key in found if key.startswith("tokenizer.")}


def _steps(node: Any) -> Iterator[tuple[str, Any]]:
    """The flattened pre-tokenizer: (type, its fields)."""
    if isinstance(node, dict) and node.get("type") == "Sequence":
        for child in node.get("pretokenizers", []):
            yield from _steps(child)
    elif isinstance(node, dict):
        yield str(node.get("type")), node


def pre_tokenizer(folder: Path, data: Mapping[str, Any], family: Family) -> str:
    """llama.cpp's name for the splitting rules of a tokenizer.json; MtpError if they have none."""
    rules: list[str] = []
    for kind, fields in _steps(data.get("pre_tokenizer")):
        if kind == "Split":
            pattern = fields.get("pattern")
            text = str(pattern.get("Regex")) if isinstance(pattern, dict) else str(pattern)
            # Some files spell line ends out, others hold the characters themselves.
            rules.append(text.replace("\r", r"\r").replace("\n", r"\n"))
        elif kind == "Digits":
            rules.append("digits")
        elif kind == "ByteLevel" and fields.get("use_regex", True):
            rules.append(_GPT2)
    return _named(folder / "tokenizer.json", tuple(rules), family)


def _named(file: Path, rules: tuple[str, ...], family: Family) -> str:
    names = _PRE_TOKENIZERS.get(rules)
    if names is None:
        raise MtpError(
            f"{file}: a pre-tokenizer that mtp-convert does not know; name it with --pre "
            "(llama.cpp's names)"
        )
    return family.pre_tokenizer if family.pre_tokenizer in names else names[0]
