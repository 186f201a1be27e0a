"""mtp-train: makes MTP heads for a model that has none. Needs the `train` extra (PyTorch)."""
