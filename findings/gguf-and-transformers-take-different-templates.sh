#!/usr/bin/env bash
# Seen 2026-11-28 with transformers 5.24.0, gguf 0.19.0.
#
# One would guess: a folder has one chat template; where it stands twice, in tokenizer_config.json
#   for older readers and in chat_template.jinja for newer ones, all readers agree on the same one.
# True: transformers takes the file, gguf's SpecialVocab (which llama.cpp's converter asks) what
#   tokenizer_config.json holds. In a folder whose template was corrected in chat_template.jinja
#   alone, the GGUF gets the old one. With further templates in additional_chat_templates and no
#   chat_template.jinja it is the other way round: gguf keeps the configured template and sees no
#   others, transformers knows the others alone and has no default left.
# Why it matters: nothing fails. The model answers in a format that it was not tuned for, and a
#   comparison of the GGUF with the original on the same messages compares two prompts.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -qq transformers==5.24.0 gguf==0.19.0
cd "$scratch"
TRANSFORMERS_VERBOSITY=critical "$scratch/venv/bin/python" - <<'PYTHON'
import json
from importlib.metadata import version
from pathlib import Path

import transformers
from gguf import SpecialVocab

OLD, NEW, RAG = "old {{ messages[0].content }}", "new {{ messages[0].content }}", "rag"
MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}
TOKENIZER = {"version": "1.0", "added_tokens": [], "model": MODEL}


def folder_of(name):
    """A tokenizer with a template in tokenizer_config.json."""
    folder = Path(name)
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": OLD}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text("{}")
    return folder


def by_transformers(folder):
    return transformers.AutoTokenizer.from_pretrained(folder).chat_template


def by_gguf(folder):
    return SpecialVocab(folder, n_vocab=2).chat_template


print("transformers", transformers.__version__, "gguf", version("gguf"))
print("expected: one template for both readers")
twice = folder_of("twice")
(twice / "chat_template.jinja").write_text(NEW)
more = folder_of("more")
(more / "additional_chat_templates").mkdir()
(more / "additional_chat_templates" / "rag.jinja").write_text(RAG)
seen = {folder.name: (by_transformers(folder), by_gguf(folder)) for folder in (twice, more)}
print("seen (transformers, gguf):")
for name, templates in seen.items():
    print(f"  {name}:", templates)

assert seen["twice"] == (NEW, OLD)
assert seen["more"] == ({"rag": RAG}, OLD)
PYTHON
