"""Which segment lengths are worth trying."""

from __future__ import annotations

LEADING_DIGITS = (1, 2, 5)
MOST_SEGMENTS = 1_000_000
"""A finer cut of a longer sequence would take hours to plan and save nothing that can be seen."""


def segment_lengths(sequence_length: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to `sequence_length` steps, in ascending order; at most MOST_SEGMENTS each.

    Neighbours differ by a factor of 2 to 2.5: a tape is at most that much coarser than the best one.
    """
    lengths = []
    scale = 1
    while scale <= sequence_length:
        lengths += [digit * scale for digit in LEADING_DIGITS if digit * scale <= sequence_length]
        scale *= 10
    return [length for length in lengths if -(-sequence_length // length) <= MOST_SEGMENTS]
