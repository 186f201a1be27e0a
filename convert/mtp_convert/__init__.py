"""mtp-convert: gets multi-token-prediction heads into GGUF files. Knows nothing of drafting."""
