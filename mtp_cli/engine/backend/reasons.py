"""llama.cpp's error lines in words of ours: what is wrong with a file, and what to do next."""

from __future__ import annotations

import re

_PLACE = re.compile(r"^\w+: ")  # the function that failed
_STAGE = re.compile(r"^error loading model( \w+)?: ")
_AGAIN = "get the file again, or another conversion of the model"
# What a line says once place and stages are gone -> ours.
_KNOWN = (
    (r"unknown model architecture: '(?P<what>.*)'",
     "its architecture, {what}, is not one that this llama.cpp runs; a later release may"),
    (r"unknown pre-tokenizer type: '(?P<what>.*)'",
     "its pre-tokenizer, {what}, is not one that this llama.cpp knows; a later release may"),
    (r"unknown tokenizer: '(?P<what>.*)'",
     "its tokenizer, {what}, is not one that this llama.cpp knows; a later release may"),
    (r"key not found in model: (?P<what>\S+)", f"{{what}} is missing in its header; {_AGAIN}"),
    (r"(?:missing tensor|tensor) '(?P<what>[^']*)'(?: not found)?$",
     f"{{what}} is missing; {_AGAIN}"),
    (r"(?:\w+: )?tensor '(?P<what>[^']*)' has wrong shape; expected (?P<expected>.*), got "
     r"(?P<found>.*)",
     f"{{what}}: expected {{expected}}, found {{found}}; {_AGAIN}"),
    (r"[KV] cache type \S+ with block size (?P<block>\d+) does not divide \w+=(?P<width>\d+)",
     "its heads have {width} numbers, and blocks have {block}"),
    (r"model does not support different K .* cache types",
     "it keeps both in one cache, which has one type"),
    (r"CLIP cannot be used as main model.*",
     "it reads pictures for a language model; give the GGUF of that"),
    (r".*(?:failed|unable) to allocate.*",
     "not enough memory; a smaller quantization, or a lower --ctx, needs less"),
)  # fmt: skip


def in_words(line: str) -> str:
    """What an error line of llama.cpp means; one that is not known is quoted."""
    said = _PLACE.sub("", line)
    while _STAGE.match(said):
        said = _STAGE.sub("", said)
    for pattern, words in _KNOWN:
        match = re.fullmatch(pattern, said)
        if match is not None:
            return words.format(**match.groupdict())
    return f"llama.cpp says: {said}"
