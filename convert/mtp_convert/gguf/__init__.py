"""GGUF files: read, planned to the byte, written. Knows no families and no checkpoints."""
