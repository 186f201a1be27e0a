"""Tensor data from where it lies to the number format it is wanted in, block by block."""
