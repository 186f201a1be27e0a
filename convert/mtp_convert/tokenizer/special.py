"""Special tokens: their roles, every id that ends an answer, and the chat template.

gguf-py reads the usual files as llama.cpp's converter does; this module adds what it passes over:
folders without tokenizer_config.json, and lists of ends. Knows nothing of ordinary tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, SpecialVocab

from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.card import GENERATION, optional
from mtp_convert.checkpoint.folder import read_json
from mtp_convert.families.rules import Family

# All ids that end an answer, int32, where there are several. The key is ours: llama.cpp's own keys
# hold three, eos, eot and eom.
KEY_ENDS = "tokenizer.ggml.eos_token_ids"
_ID = "tokenizer.ggml.{}_token_id"
_ROLES = {
    "bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding",
    "mask": "mask",
}  # fmt: skip
# What these roles are called where no file says.
_USUAL = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
# llama.cpp takes these for ends by their spelling (llama-vocab.cpp); they need no key.
KNOWN_ENDS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
})  # fmt: skip


class _Vocab(SpecialVocab):  # type: ignore[misc]
    """gguf-py's, which refuses the -1 that Llama 2's config has for "no padding"."""

    def _set_special_token(self, typ: str, tid: Any) -> None:
        if type(tid) is int and tid >= 0:
            super()._set_special_token(typ, tid)


def special_metadata(
    folder: Path, texts: Sequence[str], family: Family | None, load_merges: bool
) -> dict[str, Any]:
    """The tokenizer.* pairs of special tokens, merges and chat template."""
    vocab = _Vocab(folder, load_merges=load_merges, n_vocab=len(texts))
    for role, text in family.special_tokens if family else ():
        if text in texts:
            vocab.special_token_ids[role] = texts.index(text)
    templates, vocab.chat_template = vocab.chat_template, None
    sink = GGUFWriter(None, "llama")  # never written: it names the keys
    vocab.add_to_gguf(sink, quiet=True)
    found = {key: value.value for key, value in sink.kv_data[0].items()}
    found = {key: found[key] for key in found if key.startswith("tokenizer.")}
    for role, i in _named_roles(folder, texts):
        found.setdefault(_ID.format(_ROLES[role]), i)
    return found | template_metadata(_templates(folder, templates))


def _named_roles(folder: Path, texts: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Roles by the text of their token, for folders without a tokenizer_config.json."""
    file = folder / "special_tokens_map.json"
    named = read_json(file) if file.is_file() else {}
    if (folder / "tokenizer_config.json").is_file() and read_json(folder / "tokenizer_config.json"):
        return
    for role in _ROLES:
        entry = named.get(f"{role}_token", None if named else _USUAL.get(role))
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str) and text in texts:
            yield role, texts.index(text)


def _templates(
    folder: Path, configured: str | list[dict[str, str]] | None
) -> str | list[dict[str, str]] | None:
    """The chat templates, of several places in the order in which transformers looks.

    A file chat_template.jinja goes before `configured`, that of tokenizer_config.json: tools that
    edit the one often leave the other behind.
    """
    own, named = folder / "chat_template.jinja", folder / "chat_template.json"
    found = _read(own) if own.is_file() else configured
    if not found and named.is_file():
        content = read_json(named).get("chat_template")
        found = content if isinstance(content, str | list) else None
    more = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    if not more:
        return found
    first = [{"name": "default", "template": found}] if isinstance(found, str) else found or []
    return [*first, *({"name": file.stem, "template": _read(file)} for file in more)]


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MtpError(f"{file}: cannot be read as text: {error}") from error


def template_metadata(templates: str | Sequence[Mapping[str, str]] | None) -> dict[str, Any]:
    """The chat template, or several by name; the one called default is the template."""
    if templates is None or isinstance(templates, str):
        return {} if templates is None else {"tokenizer.chat_template": templates}
    found: dict[str, Any] = {}
    for entry in templates:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(entry.get("template"), str):
            continue
        key = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
        end = "" if key == "default" else f".{key}"
        found[f"tokenizer.chat_template{end}"] = entry["template"]
    names = [key.split(".", 2)[2] for key in found if key != "tokenizer.chat_template"]
    return found | ({"tokenizer.chat_templates": names} if names else {})


def ends_metadata(folder: Path, found: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """What the other pairs, in `found`, lack of the ids that end an answer.

    All of them under KEY_ENDS; for llama.cpp's sake those that it would not know also as eot and
    eom, where these are free.
    """
    texts: Sequence[str] = found["tokenizer.ggml.tokens"]
    eos = _ID.format("eos")
    ids = list(dict.fromkeys([*([found[eos]] if eos in found else []), *_ends(folder)]))
    beyond = [i for i in ids if i >= len(texts)]
    ids = [i for i in ids if i < len(texts)]
    if beyond:
        notes.append(f"ends of text {beyond}: beyond the {len(texts)} ids; left out")
    more: dict[str, Any] = {eos: ids[0]} if ids and eos not in found else {}
    if len(ids) > 1:
        more[KEY_ENDS] = ids
    keys = _ID.format("eot"), _ID.format("eom")
    held = {found.get(key) for key in keys}
    unknown = (i for i in ids[1:] if texts[i] not in KNOWN_ENDS and i not in held)
    free = (key for key in keys if key not in found)
    return more | dict(zip(free, unknown, strict=False))


def _ends(folder: Path) -> list[int]:
    """As transformers takes them: generation_config.json's, or else those of config.json."""
    named = optional(folder / GENERATION).get("eos_token_id")
    if named is None and (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        text = config.get("text_config")
        named = config.get("eos_token_id")
        if named is None and isinstance(text, dict):
            named = text.get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    return [i for i in listed if type(i) is int and i >= 0]
