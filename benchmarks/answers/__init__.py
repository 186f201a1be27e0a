"""Which system prompt and which sampling make the built-in model's answers right most often."""
