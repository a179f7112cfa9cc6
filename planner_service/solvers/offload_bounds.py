"""Lower bounds of the makespan that hold for every legal schedule with storage tiers.

Two arguments, neither of which looks at a policy:

- *Tapes live on the device.* The knapsack bound of `bounds.py` counts tapes alone, so it holds with
  tiers as it stands.
- *Pooled memory.* A schedule that keeps N bytes on the tiers is a schedule of one device with N bytes
  more, plus the transfers of those N bytes. So no makespan is below the least, over N, of
  cost(budget + N) + transfers(N) where transfers block, and of the larger of the two where they overlap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner_service.chain.tiers import Tier
from planner_service.solvers.needs import Bytes, Costs


def pooled_bound(
    makespans: Costs, levels: Bytes, free_bytes: int, tiers: Sequence[Tier], largest_state_bytes: int
) -> float:
    """Least of makespan at each pooled level and what moving the bytes above `free_bytes` takes.

    makespans: a lower bound on one device, per ascending free bytes in `levels`, shape (K,).
    largest_state_bytes: most bytes that one transfer, with its latency, can move.
    """
    offloaded = np.maximum(levels - free_bytes, 0)
    fits = levels <= free_bytes + sum(tier.budget_bytes for tier in tiers)
    if any(tier.overlapped for tier in tiers):
        bound = np.maximum(makespans, _stream_seconds(offloaded, tiers, largest_state_bytes))
    else:
        bound = makespans + _blocking_seconds(offloaded, tiers, largest_state_bytes)
    return float(np.where(fits, bound, np.inf).min(initial=np.inf))


def _stream_seconds(offloaded: Bytes, tiers: Sequence[Tier], largest_state_bytes: int) -> Costs:
    """Least time for bytes to reach the tiers when all write streams run side by side from the start."""
    per_byte = [_seconds_per_byte(tier, largest_state_bytes, reads=False) for tier in tiers]
    rate = np.inf if min(per_byte) == 0 else sum(1 / seconds for seconds in per_byte)
    return offloaded / rate


def _blocking_seconds(offloaded: Bytes, tiers: Sequence[Tier], largest_state_bytes: int) -> Costs:
    """Least time that the compute stream waits when what is written is also read, once."""
    return offloaded * min(_seconds_per_byte(tier, largest_state_bytes, reads=True) for tier in tiers)


def _seconds_per_byte(tier: Tier, largest_state_bytes: int, *, reads: bool) -> float:
    """Time per byte with each transfer as large as it can be, so that latencies weigh least."""
    seconds, latency = tier.write_seconds_per_byte, tier.write_latency_seconds
    if reads:
        seconds += tier.read_seconds_per_byte
        latency += tier.read_latency_seconds
    return seconds + latency / largest_state_bytes if largest_state_bytes else seconds
