#!/usr/bin/env bash
# Seen 2026-11-28 with llama-cpp-python 0.3.36 (ggml 0.25.3), gguf 0.19.0.
#
# One would guess: `general.name` of a GGUF is a title for people. How text becomes tokens is
#   decided by the `tokenizer.*` keys.
# True: llama.cpp searches the name for "phi-3" or "phi3", in lower case and anywhere in it, and
#   lets the special tokens of such a model swallow the white space after them. (GGUF has no field
#   for a token's `rstrip`, which Hugging Face's tokenizers keep per token.) The same file under
#   another title yields other tokens, with a newline after each special token of the chat
#   template.
# Why it matters: renaming a fine-tune of Phi-3 gives it prompts that it was not trained on, a
#   model that merely has the letters in its title loses its newlines, and a tool that writes or
#   merges GGUFs changes tokens by setting a title. A tool that tokenizes by itself has to look
#   at it.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
venv=${FINDINGS_VENV:-}
if [ -z "$venv" ]; then
    venv=$scratch/venv
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -qq llama-cpp-python==0.3.36 gguf==0.19.0 numpy==2.4.6
fi
cd "$scratch"
"$venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import gguf
import llama_cpp as llama

PINS = {"llama-cpp-python": "0.3.36", "gguf": "0.19.0", "numpy": "2.4.6"}
assert {name: version(name) for name in PINS} == PINS, "FINDINGS_VENV holds other versions"
BYTES = [f"<0x{value:02X}>" for value in range(256)]
WORDS = ["\u2581", "h", "i", "\n"]  # U+2581 is SentencePiece's space
SPECIAL = ["<|user|>", "<|end|>", "<|assistant|>", "<|endoftext|>"]
TOKENS = ["<unk>", "<s>", "</s>", *BYTES, *WORDS, *SPECIAL]
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
TYPES = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(WORDS) + [CONTROL] * 4
PROMPT = b"<|user|>\nhi<|end|>\n<|assistant|>\n"


def write_vocabulary(path, title):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(title)
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(TYPES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens_of(title):
    """The prompt's tokens in a file that differs from the others in its title only."""
    write_vocabulary("vocabulary.gguf", title)
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(b"vocabulary.gguf", params)
    assert model, "the vocabulary does not load"
    ids = (llama.llama_token * 64)()
    vocabulary = llama.llama_model_get_vocab(model)
    n = llama.llama_tokenize(vocabulary, PROMPT, len(PROMPT), ids, 64, False, True)
    llama.llama_model_free(model)
    return [TOKENS[token] for token in ids[:n]]


silent = llama.llama_log_callback(lambda level, text, user_data: None)
llama.llama_log_set(silent, None)
print("llama-cpp-python", PINS["llama-cpp-python"])
print("expected: the same tokens under every title")
print("seen:")
seen = {}
for title in ("Support bot", "Phi-3 support bot", "Graphi3"):
    seen[title] = tokens_of(title)
    print(f"  {title!r}:", *map(repr, seen[title]))

assert seen["Support bot"].count("\n") == 3
assert seen["Phi-3 support bot"].count("\n") == 0
assert seen["Graphi3"] == seen["Phi-3 support bot"]
PYTHON
