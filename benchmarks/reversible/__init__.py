"""Reversible layers: quality, memory, speed and exactness. `python -m benchmarks.reversible --help`."""
