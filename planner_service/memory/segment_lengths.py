"""Which segment lengths are worth trying."""

from __future__ import annotations

LEADING_DIGITS = (1, 2, 5)


def segment_lengths(sequence_length: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to `sequence_length` steps, in ascending order.

    Neighbours differ by a factor of 2 to 2.5: a tape is at most that much coarser than the best one.
    """
    lengths = []
    scale = 1
    while scale <= sequence_length:
        lengths += [digit * scale for digit in LEADING_DIGITS if digit * scale <= sequence_length]
        scale *= 10
    return lengths
