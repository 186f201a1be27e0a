"""Tiny vocabularies of every kind that llama.cpp reads text with, to be put into a tiny model.

Each has the same special tokens. A *twin* has the same ids and does not know how those of the chat
format are spelled: it reads them as the characters that they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.types import TokenKind
from tests.engine import tiny

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BOS, EOS, START, END, MARK, TAG = "<s>", "</s>", "<|start|>", "<|end|>", "<|mark|>", "<b>"
SPECIAL = {
    "<unk>": UNKNOWN,
    BOS: CONTROL,
    EOS: CONTROL,
    START: CONTROL,
    END: CONTROL,
    MARK: USER_DEFINED,
    TAG: USER_DEFINED,
    "  ": USER_DEFINED,
}
TEXT = (TAG, "  ")  # user-defined, and of no chat format
IDS = {text: token for token, text in enumerate(SPECIAL)}
LETTERS = "abdehilmnorstu<>|/ \n.?"
# What merges make, in the order in which they are made; `</s>` can be reached in this way, too.
WORDS = ("th", "he", "the", "an", "</", "s>", "<|", "|>", "end", "mark", "art", "start", "e.")
SPACE = "\u2581"


def _spellings(*, is_twin: bool) -> list[str]:
    """The special tokens' texts; where a twin does not know them, of a letter that no text has."""
    return [f"\u0f00{text}" if is_twin and text not in TEXT else text for text in SPECIAL]


def _keys(model: str, texts: Sequence[str], types: Sequence[int], **more: Any) -> dict[str, Any]:
    keys = {
        "model": model,
        "pre": "default",
        "tokens": list(texts),
        "token_type": list(types),
        "unknown_token_id": IDS["<unk>"],
        "bos_token_id": IDS[BOS],
        "eos_token_id": IDS[END],
        **more,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in keys.items()}


def spm(*, is_twin: bool = False, **more: Any) -> dict[str, Any]:
    """SentencePiece's BPE, as Llama 2 has it: merges by score, bytes for what it does not know."""
    texts = _spellings(is_twin=is_twin)
    types = list(SPECIAL.values())
    texts += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [BYTE] * 256
    scores = [0.0] * len(texts)
    words = [letter.replace(" ", SPACE) for letter in LETTERS if letter != "\n"]
    words += [*WORDS, f"{SPACE}a", f"{SPACE}th", f"{SPACE}the", SPACE * 2]
    texts += words
    types += [NORMAL] * len(words)
    scores += [-1.0 - n for n in range(len(words))]
    return _keys("llama", texts, types, scores=scores, **more)


def bpe(*, is_twin: bool = False, **more: Any) -> dict[str, Any]:
    """GPT-2's BPE over bytes."""
    texts = [*_spellings(is_twin=is_twin), *tiny.TOKENS[:256], *WORDS, "\u0120a", "\u0120the"]
    types = [*SPECIAL.values(), *([NORMAL] * (len(texts) - len(SPECIAL)))]
    merges = ["t h", "h e", "t he", "a n", "< /", "s >", "< |", "| >", "a r", "ar t", "e ."]
    merges += ["\u0120 a", "\u0120 the"]
    more.setdefault("pre", "gpt-2")
    return _keys("gpt2", texts, types, merges=merges, **more)


def ugm(*, is_twin: bool = False, **more: Any) -> dict[str, Any]:
    """SentencePiece's unigram model, as T5 has it."""
    words = [letter.replace(" ", SPACE) for letter in LETTERS]
    words += [*WORDS, f"{SPACE}a", f"{SPACE}the"]
    texts = [*_spellings(is_twin=is_twin), *words]
    types = [*SPECIAL.values(), *([NORMAL] * len(words))]
    scores = [0.0] * len(SPECIAL) + [-2.0 - 0.1 * n for n in range(len(words))]
    more.setdefault("add_space_prefix", True)
    return _keys("t5", texts, types, scores=scores, **more)


def wpm(*, is_twin: bool = False, **more: Any) -> dict[str, Any]:
    """WordPiece, as BERT has it: whole words and their continuations."""
    words = [*(SPACE + letter for letter in LETTERS if not letter.isspace()), *LETTERS[:13]]
    words += [SPACE + word for word in WORDS]
    texts = [*_spellings(is_twin=is_twin), *words]
    types = [*SPECIAL.values(), *([NORMAL] * len(words))]
    ids = {"seperator_token_id": IDS[EOS], "padding_token_id": 0}
    return _keys("bert", texts, types, **ids, **more)


def write(path: Path, vocabulary: dict[str, Any], template: str | None = None) -> Path:
    """A model of one layer that has this vocabulary."""
    spec = tiny.llama(n_blocks=1)
    n = len(vocabulary["tokenizer.ggml.tokens"])
    for name in ("token_embd.weight", "output.weight"):
        spec.tensors[name] = np.resize(spec.tensors[name], (n, tiny.N_EMBD))
    for key in tiny.VOCABULARY:
        del spec.keys[key]
    spec.keys.update(vocabulary)
    if template is not None:
        spec.keys["tokenizer.chat_template"] = template
    return spec.write(path)


class VocabularyTokenizer:
    """The engine's part that reads text, over a model whose weights are never read."""

    def __init__(self, path: Path) -> None:
        self._model = Model(path, no_alloc=True)
        self.metadata = self._model.metadata()
        self.first_token = self._model.first_token
        self.n_vocab = self._model.n_vocab

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return self._model.tokenize(text, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self._model.piece(token, special=special)

    def special_text(self, name: Literal["bos", "eos"]) -> str:
        return self._model.special_text(name)

    def is_eog(self, token: int) -> bool:
        return self._model.is_eog(token)

    def kind(self, token: int) -> TokenKind:
        return self._model.types.kind(token)

    def is_matched(self, token: int) -> bool:
        return self._model.types.is_matched(token)
