"""Sparsified gate gradients: quality, sparsity, speed. `python -m benchmarks.sparse --help`."""
