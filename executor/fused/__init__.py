"""Segments of k steps of torch's LSTM and GRU in compiled kernels of our own, for the CPU."""
