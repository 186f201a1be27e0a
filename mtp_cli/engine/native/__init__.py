"""Our compiled code. Knows nothing of models, drafts or files."""
