"""Checkpoints as their makers publish them: folders, shards, PyTorch files. Headers first."""
