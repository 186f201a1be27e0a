"""How much a model can be told to think, as users say it. Imports nothing, for `--help`'s sake."""

LEVELS = ("off", "on", "minimal", "low", "medium", "high", "max")


def is_level(text: str) -> bool:
    """One of LEVELS, or a number of tokens."""
    return text in LEVELS or (text.isascii() and text.isdecimal() and len(text) < 10)
