"""A loaded GGUF: its weights' handle, its vocabulary, its sizes.

Owns the model's native handle, and turns each null or non-zero return into an `MtpError`. Knows
nothing of contexts, drafting or sampling, and of text only the vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from mtp_cli.engine.backend import our_kernels, spare
from mtp_cli.engine.backend.adapters import Adapters, Lora
from mtp_cli.engine.backend.binding import errors, failure, lib, open_file_at
from mtp_cli.engine.backend.gguf_keys import read_pairs
from mtp_cli.engine.backend.placement import ANYWHERE, Placement
from mtp_cli.engine.backend.stack import on_deep_stack
from mtp_cli.engine.backend.token_types import TokenTypes
from mtp_cli.errors import MtpError

our_kernels.install()  # before any model: ggml's list of buffer types has to have ours in it

_KEY_NORMAL_FORM = "tokenizer.ggml.normalizer"  # ours: llama.cpp has no such key
_NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
_SHORT_TEXT = 4096  # bytes that any pre-tokenizer takes on an ordinary stack
# Architectures that keep compressed keys, which cannot be taken apart: like recurrent state, they
# go back to a snapshot only.
_COMPRESSES = ("deepseek4",)
# Bytes of stack for a longer text: for any, and more for each of its own bytes.
_STACK_BYTES, _STACK_PER_BYTE = 64 << 20, 512


def _reporter(on_progress: Callable[[float], None]) -> Callable[[float, Any], bool]:
    def report(fraction: float, _user_data: Any) -> bool:
        on_progress(fraction)
        return True

    return report


def _overrides(corrected: Mapping[str, int]) -> Any:
    """llama.cpp's list of metadata to read otherwise, ended by an entry without a key."""
    found = (lib.llama_model_kv_override * (len(corrected) + 1))()
    for entry, (key, value) in zip(found, corrected.items(), strict=False):
        entry.tag, entry.key = lib.LLAMA_KV_OVERRIDE_TYPE_INT, key.encode()
        entry.value.val_i64 = value
    return found


def _loaded(path: Path, offset: int, params: Any, corrected: Mapping[str, int]) -> Any:
    """The model's handle, null when llama.cpp cannot load it."""
    if offset:
        with open_file_at(path, offset) as file:
            return lib.llama_model_load_from_file_ptr(file, params)
    if not corrected:
        return lib.llama_model_load_from_file(os.fsencode(path), params)
    params.kv_overrides = _overrides(corrected)
    handle = lib.llama_model_load_from_file(os.fsencode(path), params)
    if handle:
        return handle
    # Lists with an entry for each block do not fit then; some graphs pass missing heads over.
    params.kv_overrides = None
    handle = lib.llama_model_load_from_file(os.fsencode(path), params)
    if handle and int(lib.llama_model_n_layer(handle)) in corrected.values():
        return handle
    if handle:
        lib.llama_model_free(handle)
    raise MtpError(
        f"{path}: announces heads that it lacks; mtp-convert strip writes it without that"
    )


class Model:
    """A loaded GGUF.

    n_gpu_layers: -1 for all; with `no_alloc` the file is only examined, and no weight is read
    offset:       where in the file the GGUF begins
    corrected:    numbers of its metadata that are wrong in the file, as they should be
    placement:    which device has which of its tensors
    loras:        adapters for the contexts of its text
    lays_out:     in memory of its own, weights may be laid out for our kernels; without, they stay
                  mapped from the file, but for those that llama.cpp repacks
    """

    def __init__(
        self,
        path: Path,
        *,
        n_gpu_layers: int = -1,
        no_alloc: bool = False,
        offset: int = 0,
        corrected: Mapping[str, int] | None = None,
        placement: Placement = ANYWHERE,
        loras: Sequence[Lora] = (),
        lays_out: bool = True,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        params = lib.llama_model_default_params()
        kept = placement.apply(params)
        params.load_mtp = True
        params.no_alloc = no_alloc
        params.n_gpu_layers = n_gpu_layers
        if no_alloc:
            params.load_mode = lib.LLAMA_LOAD_MODE_NONE  # llama.cpp refuses a mapping here
        if on_progress is not None:
            params.progress_callback = lib.llama_progress_callback(_reporter(on_progress))
        errors.clear()
        self.path, self.placement = path, placement
        with our_kernels.laying_out(lays_out):
            self.handle = _loaded(path, offset, params, corrected or {})
        del kept
        if not self.handle:
            raise failure(f"{path}: llama.cpp could not load this model")
        try:
            self.adapters = Adapters(self.handle, loras)
        except MtpError:
            lib.llama_model_free(self.handle)
            raise
        self.vocab = lib.llama_model_get_vocab(self.handle)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
        self.n_embd = int(lib.llama_model_n_embd_out(self.handle))
        self.n_layer = int(lib.llama_model_n_layer(self.handle))
        self.n_layer_nextn = int(lib.llama_model_n_layer_nextn(self.handle))
        self.n_ctx_train = int(lib.llama_model_n_ctx_train(self.handle))
        self.n_swa = int(lib.llama_model_n_swa(self.handle))
        metadata = self.metadata()
        self.architecture = metadata.get("general.architecture", "")
        self.is_recurrent = self.architecture in _COMPRESSES or bool(
            lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle)
        )
        self.is_mla = any(key.endswith(".attention.kv_lora_rank") for key in metadata)
        self.uses_rope = lib.llama_model_rope_type(self.handle) != lib.LLAMA_ROPE_TYPE_NONE

    def check_text(self) -> None:
        """Raise MtpError when this is no model that continues text.

        Also tries all of its vocabulary: llama.cpp throws C++ exceptions, which nothing here could
        catch, where a tokenizer's own tokens are missing or misspelt.
        """
        if lib.llama_vocab_type(self.vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            raise MtpError(f"{self.path}: this model has no vocabulary to read text with")
        is_decoder = lib.llama_model_has_decoder(self.handle)
        if not is_decoder or lib.llama_model_has_encoder(self.handle):
            raise MtpError(f"{self.path}: this model has an encoder; only decoders continue text")
        if lib.llama_model_is_diffusion(self.handle):
            raise MtpError(f"{self.path}: this is a diffusion model; only decoders continue text")
        letters = "".join(map(chr, range(1, 0x250)))
        for parse_special in (False, True):
            self.tokenize(letters + "語🙂", add_special=True, parse_special=parse_special)
        for token in range(self.n_vocab):
            self.piece(token, special=True)

    def metadata(self) -> dict[str, str]:
        """Every scalar key of the file, as llama.cpp prints its value."""
        pairs = {}
        for index in range(lib.llama_model_meta_count(self.handle)):
            key = self._string(lib.llama_model_meta_key_by_index, index)
            pairs[key] = self._string(lib.llama_model_meta_val_str_by_index, index)
        return pairs

    def _string(self, read: Callable[..., int], index: int) -> str:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            needed = read(self.handle, index, buffer, size)
            if needed < size:
                return buffer.value.decode(errors="replace")
            size = needed + 1

    @functools.cached_property
    def normal_form(self) -> _NormalForm | None:
        """Unicode's normal form that texts are to be read in, where a file of ours names one."""
        named = read_pairs(self.path).get(_KEY_NORMAL_FORM)
        return next((form for form in get_args(_NormalForm) if form == named), None)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Ids of a text, which is put into its normal form unless it may spell special tokens."""
        if self.normal_form is not None and not parse_special:
            text = unicodedata.normalize(self.normal_form, text)
        raw = text.encode()
        if len(raw) <= _SHORT_TEXT:
            return self._tokenize(raw, add_special, parse_special)
        # Some pre-tokenizers are a std::regex, which recurses once for each character.
        return on_deep_stack(
            _STACK_BYTES + _STACK_PER_BYTE * len(raw),
            lambda: self._tokenize(raw, add_special, parse_special),
        )

    def _tokenize(self, raw: bytes, add_special: bool, parse_special: bool) -> list[int]:
        size = len(raw) + 8
        while True:
            ids = (lib.llama_token * size)()
            n = lib.llama_tokenize(self.vocab, raw, len(raw), ids, size, add_special, parse_special)
            if n >= 0:
                return list(ids[:n])
            if -n <= size:
                raise failure("llama.cpp could not tokenize the text")
            size = -n

    @functools.cached_property
    def types(self) -> TokenTypes:
        """What the file says of its tokens; for a GGUF at the start of its file."""
        return TokenTypes(
            self.vocab,
            read_pairs(self.path),
            lambda token: self._piece(token, True).decode(errors="replace"),
        )

    @property
    def first_token(self) -> int | None:
        """The token that every text begins with (BOS), None where the file wants none."""
        return self.types.role("bos") if lib.llama_vocab_get_add_bos(self.vocab) else None

    def spellings(self) -> list[bytes]:
        """Every token as the file has it, by id."""
        return [lib.llama_vocab_get_text(self.vocab, token) for token in range(self.n_vocab)]

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of one token; they may end inside a UTF-8 character.

        special: a control token's too, which is no text and else has none
        """
        return self._piece(token, special or self.types.kind(token) != "control")

    def _piece(self, token: int, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def is_eog(self, token: int) -> bool:
        """Whether the token ends an answer, see `TokenTypes.is_end`."""
        return self.types.is_end(token)

    def suppressed(self) -> list[int]:
        """Ids that are never to be chosen (the file's tokenizer.ggml.suppress_tokens)."""
        n_ids = ctypes.c_int32()
        ids = lib.llama_vocab_get_suppress_tokens(self.vocab, ctypes.byref(n_ids))
        return list(ids[: n_ids.value]) if ids and n_ids.value else []

    def special_text(self, name: Literal["bos", "eos"]) -> str:
        """The text of the "bos" or "eos" token, empty when the vocabulary has none."""
        token = self.types.role(name)
        return "" if token is None else self.piece(token, special=True).decode(errors="replace")

    def close(self) -> None:
        if self.handle:
            spare.settle()
            lib.llama_model_free(self.handle)
            self.handle = None
