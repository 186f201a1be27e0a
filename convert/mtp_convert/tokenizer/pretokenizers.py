"""llama.cpp's names for the rules by which a tokenizer.json reads text.

Owns the table of those that split text, and what the names say besides: whether a word that is a
token is taken before anything is merged. Knows nothing of special tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtp_cli.errors import MtpError
from mtp_convert.families.rules import Family

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
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",
    ): ("bailingmoe2",),
    (
        r"\d{1,3}(?=(?:\d{3})*\b)",
        f"{_START}{_UPPER}*{_LOWER}+{_CASES}?|{_START}{_UPPER}+{_LOWER}*{_CASES}?" + r"|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ): ("cohere2moe",),
    ("digits", _GPT2): ("smollm",),
    (_GPT2,): ("gpt-2",),
}  # fmt: skip
# The names with which llama.cpp looks a word up before it merges (llama-vocab.cpp).
_LOOKED_UP = frozenset({
    "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "jina-v5-nano", "minicpm5", "youtu", "glm4", "glm5", "tekken", "granite-embed-multi-97m",
})  # fmt: skip
_NORMAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
# Unicode's normal form that texts are put into. The key is ours: llama.cpp has none for a BPE.
KEY_NORMAL_FORM = "tokenizer.ggml.normalizer"


def steps(node: Any, children: str = "pretokenizers") -> Iterator[tuple[str, Any]]:
    """The flattened pre-tokenizer, or normalizer: (type, its fields)."""
    if isinstance(node, dict) and node.get("type") == "Sequence":
        for child in node.get(children) or []:
            yield from steps(child, children)
    elif isinstance(node, dict):
        yield str(node.get("type")), node


def pre_tokenizer(folder: Path, data: Mapping[str, Any], family: Family) -> str:
    """llama.cpp's name for the splitting rules of a tokenizer.json; MtpError if they have none."""
    rules: list[str] = []
    for kind, fields in steps(data.get("pre_tokenizer")):
        if kind == "Split":
            _check_split(folder / "tokenizer.json", fields)
            pattern = fields.get("pattern")
            text = str(pattern.get("Regex")) if isinstance(pattern, dict) else str(pattern)
            # Some files spell line ends out, others hold the characters themselves.
            rules.append(text.replace("\r", r"\r").replace("\n", r"\n"))
        elif kind == "Digits":
            rules.append("digits")
        elif kind == "ByteLevel":
            if fields.get("add_prefix_space"):
                raise MtpError(
                    f"{folder / 'tokenizer.json'}: add_prefix_space: llama.cpp puts no space in "
                    "front of a byte-level BPE's texts"
                )
            rules += [_GPT2] if fields.get("use_regex", True) else []
    return named(folder / "tokenizer.json", tuple(rules), family)


def named(file: Path, rules: tuple[str, ...], family: Family) -> str:
    names = _PRE_TOKENIZERS.get(rules)
    if names is None:
        raise MtpError(
            f"{file}: a pre-tokenizer that mtp-convert does not know; name it with --pre "
            "(llama.cpp's names)"
        )
    return family.pre_tokenizer if family.pre_tokenizer in names else names[0]


def _check_split(file: Path, fields: Mapping[str, Any]) -> None:
    """MtpError for a split that drops text, or glues what it finds to its neighbours."""
    found = (fields.get("behavior", "Isolated"), bool(fields.get("invert")))
    if found not in (("Isolated", False), ("Removed", True)):
        raise MtpError(
            f"{file}: a pre-tokenizer that splits with {found[0]}"
            f"{', inverted' if found[1] else ''}: llama.cpp keeps every piece by itself"
        )


def normal_form(file: Path, data: Mapping[str, Any]) -> str | None:
    """Unicode's normal form that a tokenizer.json asks for; MtpError for any other change."""
    found = [kind for kind, _ in steps(data.get("normalizer"), "normalizers")]
    unknown = [kind for kind in found if kind not in _NORMAL_FORMS]
    if unknown or len(found) > 1:
        kinds = ", ".join(map(str, unknown or found))[:60]
        raise MtpError(f"{file}: a normalizer of the kind {kinds}, which llama.cpp lacks")
    return found[0] if found else None


def lookup_note(data: Mapping[str, Any], name: str) -> str | None:
    """Where llama.cpp looks words up and the tokenizer does not, or the reverse, and it matters.

    It does for tokens that no merge makes. name: of the pre-tokenizer
    """
    model = data["model"]
    is_looked_up = bool(model.get("ignore_merges"))
    if is_looked_up is (name in _LOOKED_UP):
        return None
    merges = model.get("merges") or []
    made = {"".join(m.split(" ", 1) if isinstance(m, str) else m) for m in merges}
    made |= {added["content"] for added in data.get("added_tokens") or []}
    found = [text for text in model.get("vocab") or {} if len(text) > 1 and text not in made]
    if not found:
        return None
    readers = "tokenizer.json", f"llama.cpp's {name}"
    takes, does_not = readers if is_looked_up else readers[::-1]
    return (
        f"{len(found)} tokens that no merge makes, {found[0]!r} the first: {takes} takes them for "
        f"whole words (ignore_merges), {does_not} does not: such words become other ids"
    )
