"""What drafting is worth on this machine, measured."""
