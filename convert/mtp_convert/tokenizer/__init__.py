"""A checkpoint's tokenizer into GGUF metadata."""
