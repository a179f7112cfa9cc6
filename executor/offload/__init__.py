"""Stored states and tapes that leave the device: to pinned host memory or to a file, and back in time."""
