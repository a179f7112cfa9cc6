"""Checkpoints that may leave the device: the optimal schedule over tiers, and what it is searched with."""
