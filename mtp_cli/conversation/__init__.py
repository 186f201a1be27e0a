"""A conversation: messages, templates and text. Knows no terminal and no model."""
