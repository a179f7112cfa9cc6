"""Kernels in C and Triton: compiled where the machine can, tried before they are trusted."""
