"""May it be loaded: GGUF headers, which heads belong to which trunk, what would end the process."""
