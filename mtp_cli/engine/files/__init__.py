"""May it be loaded: GGUF headers, heads and the target they are for, what ends the process."""
