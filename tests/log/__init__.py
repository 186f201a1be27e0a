"""The log of conversations."""
