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
from dataclasses import fields
from math import gcd

import numpy as np

from planner_service.chain import Chain, Stage, StageRun
from planner_service.chain.tiers import Tier
from planner_service.solvers.bounds import knapsack_bound
from planner_service.solvers.intervals import IntervalTable, interval_additions
from planner_service.solvers.levels import Levels
from planner_service.solvers.needs import REVERSE_NEED, Bytes, ChainNeeds, Costs, chain_needs
from planner_service.solvers.offload.tables import state_sizes
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.wide import is_wide

MOST_LEVELS = 2_000
MOST_ADDITIONS = 500_000_000


def offload_bound(chain: Chain, free_bytes: int, tiers: Sequence[Tier], cancellation: Cancellation) -> float:
    """No legal schedule of `chain` with `free_bytes` beside static bytes and x_0 and with `tiers` has a
    smaller makespan.
    """
    budget_bytes = free_bytes + chain.static_bytes + chain.input_bytes
    tapes = knapsack_bound(chain, budget_bytes)
    if is_wide(chain_needs(chain)):
        return tapes
    return max(tapes, _pooled_bound(chain, free_bytes, tiers, cancellation))


def _pooled_bound(chain: Chain, free_bytes: int, tiers: Sequence[Tier], cancellation: Cancellation) -> float:
    """The second argument, on the chain of equal stages below `chain`; 0 where its cost is not known for
    all schedules (tapes no larger than states, levels that are not exact).
    """
    relaxed = _leanest_stage(chain)
    if relaxed.tape_bytes <= relaxed.state_bytes:
        return 0.0
    gradient_bytes = relaxed.live_gradient_bytes
    needs = chain_needs(
        Chain(
            (StageRun(chain.length, relaxed),),
            loss_gradient_bytes=gradient_bytes,
            input_gradient_bytes=gradient_bytes,
        )
    )
    pooled_bytes = min(free_bytes + sum(tier.budget_bytes for tier in tiers), needs.store_all_bytes)
    levels = _pooled_levels(relaxed, needs, free_bytes, max(pooled_bytes, free_bytes))
    if levels is None:
        return 0.0
    costs = IntervalTable(needs, levels, cancellation).cost(0, needs.length - 1)
    # Up to the first level, or more than one and up to the next: the upper end's cost holds for all of
    # these. Nothing runs twice beyond the last one.
    lower_ends = np.concatenate(([free_bytes], levels.free_bytes))
    makespans = chain.store_all_makespan + np.concatenate((costs, [0.0]))
    if levels.free_bytes[-1] >= pooled_bytes:
        lower_ends, makespans = lower_ends[:-1], makespans[:-1]
    beyond = np.maximum(lower_ends - free_bytes, 0)
    largest_bytes = int(state_sizes(chain).max(initial=0))
    return float(_with_transfers(makespans, beyond, tiers, largest_bytes).min())


def _pooled_levels(stage: Stage, needs: ChainNeeds, free_bytes: int, pooled_bytes: int) -> Levels | None:
    """Levels up to `pooled_bytes`, or to fewer if that is too many, closed under storing any number of
    states and tapes: the cost at every one of them is then exact. None when even `free_bytes` has too many.
    """
    least_bytes = int(needs.table[:, REVERSE_NEED].min())
    while True:
        state_count, tape_count = (
            (pooled_bytes - least_bytes) // size + 1 if size else 1
            for size in (stage.state_bytes, stage.tape_bytes)
        )
        if _fewest_levels(state_count, tape_count, stage) <= MOST_LEVELS:
            states = np.arange(state_count, dtype=np.int64) * stage.state_bytes
            tapes = np.arange(tape_count, dtype=np.int64) * stage.tape_bytes
            values = np.unique(pooled_bytes - states[:, None] - tapes[None, :])
            levels = Levels(values[values >= least_bytes], exact=True)
            small = len(levels.free_bytes) <= MOST_LEVELS
            if small and interval_additions(needs, levels) <= MOST_ADDITIONS:
                return levels
        if pooled_bytes <= free_bytes:
            return None
        pooled_bytes = free_bytes + (pooled_bytes - free_bytes) // 2


def _fewest_levels(state_count: int, tape_count: int, stage: Stage) -> int:
    """At least so many different sums of a number of states and a number of tapes keep to the bytes in
    which `state_count` states alone, or `tape_count` tapes alone, keep.
    """
    # Up to here no states are worth as much as some tapes; half of the rectangle keeps to the bytes.
    period = stage.tape_bytes // gcd(stage.state_bytes, stage.tape_bytes)
    return min(state_count, period) * tape_count // 2


def _leanest_stage(chain: Chain) -> Stage:
    """A stage that costs and occupies no more than any of the chain's: what a legal schedule of the chain
    does is legal, and no dearer, on equal stages like this one.
    """
    stages = [run.stage for run in chain.runs]
    sizes = [field.name for field in fields(Stage) if field.name.endswith(("_cost", "_bytes"))]
    sizes.remove("gradient_bytes")
    least = {name: min(getattr(stage, name) for stage in stages) for name in sizes}
    gradients = [chain.gradient_bytes(0), chain.loss_gradient_bytes]
    gradients += [stage.live_gradient_bytes for stage in stages]
    return Stage(**least, gradient_bytes=min(gradients))


def _with_transfers(makespans: Costs, beyond: Bytes, tiers: Sequence[Tier], largest_bytes: int) -> Costs:
    """The makespans with the least time that moving `beyond` bytes takes beside or after them."""
    if not tiers:
        return makespans
    if any(tier.overlapped for tier in tiers):
        # At best all write streams are busy from the start to the end.
        rates = [_seconds_per_byte(tier, largest_bytes, reads=False) for tier in tiers]
        together = 0.0 if min(rates) == 0 else 1 / sum(1 / seconds for seconds in rates)
        streams = (beyond * together).astype(np.float64)
        return np.maximum(makespans, streams)
    # What is written and never read need not have been written.
    per_byte = min(_seconds_per_byte(tier, largest_bytes, reads=True) for tier in tiers)
    return makespans + (beyond * per_byte).astype(np.float64)


def _seconds_per_byte(tier: Tier, largest_bytes: int, *, reads: bool) -> float:
    """Time per byte with each transfer as large as it can be, so that latencies weigh least."""
    seconds, latency = tier.write_seconds_per_byte, tier.write_latency_seconds
    if reads:
        seconds += tier.read_seconds_per_byte
        latency += tier.read_latency_seconds
    return seconds + latency / largest_bytes if largest_bytes else 0.0
