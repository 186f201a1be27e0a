"""llama.cpp's names for the rules by which a tokenizer.json splits text before merging.

Owns the table and the reading of the rules. Knows nothing of vocabularies.
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
    ("digits", _GPT2): ("smollm",),
    (_GPT2,): ("gpt-2",),
}  # fmt: skip


def steps(node: Any) -> Iterator[tuple[str, Any]]:
    """The flattened pre-tokenizer: (type, its fields)."""
    if isinstance(node, dict) and node.get("type") == "Sequence":
        for child in node.get("pretokenizers", []):
            yield from steps(child)
    elif isinstance(node, dict):
        yield str(node.get("type")), node


def pre_tokenizer(folder: Path, data: Mapping[str, Any], family: Family) -> str:
    """llama.cpp's name for the splitting rules of a tokenizer.json; MtpError if they have none."""
    rules: list[str] = []
    for kind, fields in steps(data.get("pre_tokenizer")):
        if kind == "Split":
            pattern = fields.get("pattern")
            text = str(pattern.get("Regex")) if isinstance(pattern, dict) else str(pattern)
            # Some files spell line ends out, others hold the characters themselves.
            rules.append(text.replace("\r", r"\r").replace("\n", r"\n"))
        elif kind == "Digits":
            rules.append("digits")
        elif kind == "ByteLevel" and fields.get("use_regex", True):
            rules.append(_GPT2)
    return named(folder / "tokenizer.json", tuple(rules), family)


def named(file: Path, rules: tuple[str, ...], family: Family) -> str:
    names = _PRE_TOKENIZERS.get(rules)
    if names is None:
        raise MtpError(
            f"{file}: a pre-tokenizer that mtp-convert does not know; name it with --pre "
            "(llama.cpp's names)"
        )
    return family.pre_tokenizer if family.pre_tokenizer in names else names[0]
