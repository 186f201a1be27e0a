"""What a GGUF itself says of its tokens: their kinds, and which of them end an answer.

llama.cpp judges by spelling, too. It takes `</s>` for a control token and an end wherever a
vocabulary has it (in Gemma 3 it is an HTML tag, in Qwen 2.5 an ordinary merge), and gpt-oss's
control tokens for text. Where a file names no BOS or EOS it has ids of its own: 11 in every
byte-level BPE, which in GPT-2's and Qwen's is the comma. Here the types and ids in the file decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.types import TokenKind

KEY_END_IDS = "tokenizer.ggml.eos_token_ids"
"""Array of all ids that end an answer, where there are more than llama.cpp has keys for."""
_KEY_TYPES = "tokenizer.ggml.token_type"
_KEY_OF_ONE = "tokenizer.ggml.{}_token_id"
_KEYS_OF_ONE = tuple(map(_KEY_OF_ONE.format, ("eos", "eot", "eom")))
_ROLES = {"bos": lib.llama_vocab_bos, "eos": lib.llama_vocab_eos}
_KEY_TEMPLATE = "tokenizer.chat_template"
# gguf's numbers for unknown, control and user-defined tokens; all others are text
_KINDS: dict[int, TokenKind] = {2: "control", 3: "control", 4: "user-defined"}
_CONTROL = lib.LLAMA_TOKEN_ATTR_UNKNOWN | lib.LLAMA_TOKEN_ATTR_CONTROL
_MATCHED = _CONTROL | lib.LLAMA_TOKEN_ATTR_USER_DEFINED


class TokenTypes:
    """The tokens of one vocabulary.

    vocab:   llama.cpp's handle
    pairs:   the file's keys, its arrays of numbers among them (`gguf_keys.read_pairs`)
    spelled: the text of a token, control or not
    """

    def __init__(self, vocab: Any, pairs: Mapping[str, Any], spelled: Callable[[int], str]) -> None:
        n_vocab = int(lib.llama_vocab_n_tokens(vocab))
        types = pairs.get(_KEY_TYPES)
        is_whole = isinstance(types, np.ndarray) and len(types) >= n_vocab
        self._types = types if is_whole else None
        self._vocab = vocab
        self._pairs = pairs
        self._spelled = spelled
        self._template = str(pairs.get(_KEY_TEMPLATE, ""))
        self._named = _named_ends(pairs)
        self._is_end: dict[int, bool] = {}

    def kind(self, token: int) -> TokenKind:
        """By the file's own types; by llama.cpp's where the file has none."""
        if self._types is not None:
            return _KINDS.get(int(self._types[token]), "text")
        attributes = lib.llama_vocab_get_attr(self._vocab, token)
        if attributes & _CONTROL:
            return "control"
        return "user-defined" if attributes & _MATCHED else "text"

    def role(self, name: Literal["bos", "eos"]) -> int | None:
        """The token that begins or ends a text; None where the file has none.

        A file without the key means llama.cpp's own id only where that is a control token, and
        never in a BPE.
        """
        token = int(_ROLES[name](self._vocab))
        if token < 0:
            return None
        is_named = self._pairs.get(_KEY_OF_ONE.format(name)) == token
        is_bpe = lib.llama_vocab_type(self._vocab) == lib.LLAMA_VOCAB_TYPE_BPE
        is_text = self._types is not None and self.kind(token) != "control"
        return token if is_named or not (is_bpe or is_text) else None

    def is_matched(self, token: int) -> bool:
        """Whether llama.cpp looks for this token's spelling in text that may hold special tokens.

        Where it is user-defined, in any text.
        """
        return bool(lib.llama_vocab_get_attr(self._vocab, token) & _MATCHED)

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer.

        The ids that the file names do. Of those that llama.cpp adds by their spelling, control
        tokens do, and others only where the chat template spells them: `<|end|>` ends Phi-3's
        turns though it is user-defined.
        """
        if token not in self._is_end:
            self._is_end[token] = token in self._named or self._is_end_by_spelling(token)
        return self._is_end[token]

    def _is_end_by_spelling(self, token: int) -> bool:
        if not lib.llama_vocab_is_eog(self._vocab, token):
            return False
        if self.kind(token) == "control":
            return True
        if token == lib.llama_vocab_eos(self._vocab) and self.role("eos") is None:
            return False
        return self._types is None or self._is_in_template(token)

    def _is_in_template(self, token: int) -> bool:
        return self._spelled(token) in self._template


def _named_ends(pairs: Mapping[str, Any]) -> frozenset[int]:
    ids = [pairs[key] for key in _KEYS_OF_ONE if isinstance(pairs.get(key), int)]
    more = pairs.get(KEY_END_IDS)
    if isinstance(more, np.ndarray) and more.dtype.kind in "iu":
        ids += more.tolist()
    return frozenset(ids)
