"""What a plan says of tapes in host memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostTapes:
    """Room for tapes in host memory, on CUDA pinned."""

    slot_bytes: int
    """What of one tape leaves the device, at most."""
    most: int
    """How many tapes there is room for."""
    budget_bytes: int = 0
    """What host memory may hold: a tape that is larger than all that were rehearsed may take what is left."""
