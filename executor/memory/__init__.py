"""Bytes: what allocators hand out, what a device has left, budgets and hard caps, traces."""
