"""The tables of the offload recurrence (`offload/solve.py`) for one chain, budget and list of tiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from planner_service.chain import Chain
from planner_service.chain.tiers import Tier
from planner_service.solvers import kernels
from planner_service.solvers.intervals import stages_of
from planner_service.solvers.needs import Bytes, ChainNeeds, Costs
from planner_service.solvers.offload import kernels as offload
from planner_service.solvers.offload.kernels import Alone, Device, Shelf
from planner_service.solvers.offload.levels import TierLevels
from planner_service.solvers.solution import Cancellation


def state_sizes(chain: Chain) -> Bytes:
    """Bytes of the states that may leave the device, x_1 … x_{L-1}, shape (L - 1,)."""
    stages = list(chain.stages())
    return np.array([stage.state_bytes for stage in stages[:-1]], dtype=np.int64)


def device_view(chain: Chain, free_bytes: int) -> Device:
    """The device as the offload kernels see it. O(L)."""
    sizes = state_sizes(chain)
    start_bytes = np.concatenate((sizes[:1], sizes)) if len(sizes) else np.zeros(1, dtype=np.int64)
    return Device(free_bytes, start_bytes)


def alone_view(chain: Chain, needs: ChainNeeds, levels: Bytes, costs: Costs, tiers: Sequence[Tier]) -> Alone:
    """The recurrence without tiers as the offload kernels see it, costs[row, level]. O(L)."""
    reversal = np.array([stage.taped_forward_cost + stage.backward_cost for stage in chain.stages()])
    least = np.full(len(needs.runs), np.inf)
    np.minimum.at(least, needs.kind, reversal)  # interchangeable stages share rows: take the fastest
    landing_bytes = int(state_sizes(chain).max(initial=0))
    reads = [tier.read_seconds(landing_bytes) for tier in tiers if tier.overlapped]
    return Alone(
        levels=levels,
        costs=costs,
        reversal_before=np.concatenate(([0.0], np.cumsum(least[needs.kind]))),
        landing_bytes=landing_bytes,
        read_seconds=np.array([0.0, *reads]),
    )


class Ground(NamedTuple):
    """What the tiers stand on: the device alone."""

    kept: Costs
    """Shape (dues, rows): cost of an interval that drops its start, and of the read that follows."""
    held: Costs
    """Shape (L,): cost of the first stages with x_0 held."""


def ground(needs: ChainNeeds, device: Device, alone: Alone) -> Ground:
    """The costs on the device alone."""
    stages = stages_of(needs)
    kept = np.full((len(alone.read_seconds), len(alone.costs)), np.inf)
    held = np.empty(needs.length)
    offload.fill_kept(stages, device, alone, kept)
    offload.fill_held(stages, device, alone, held)
    return Ground(kept, held)


class OffloadTables:
    """Every table of one solve, filled."""

    def __init__(
        self,
        needs: ChainNeeds,
        device: Device,
        base: Ground,
        tiers: Sequence[Tier],
        levels: Sequence[TierLevels],
        cancellation: Cancellation,
        price_per_byte: float = 0.0,
    ) -> None:
        """price_per_byte: what writing a byte costs beside its time; part of every cost below."""
        self.needs = needs
        self.stages = stages_of(needs)
        self.device = device
        self.tiers = tuple(tiers)
        self.held = base.held
        self.shelves: list[Shelf] = []
        # A pending write costs a kept start nothing: it stays anyway.
        under = np.array([base.kept] * len(base.kept))
        for position in range(len(tiers)):
            shelf = self._shelf(position, levels[position].floor, under, price_per_byte)
            offload.fill_tier(self.stages, device, shelf, cancellation.flag)
            cancellation.check()
            self.shelves.append(shelf)
            under = shelf.over
        self.over: Costs = np.ascontiguousarray(under[0, 0])
        self.roots: Costs = np.empty(needs.length)
        offload.fill_roots(self.stages, device, self.held, self.over, self.roots, cancellation.flag)
        cancellation.check()

    @property
    def cost(self) -> float:
        """Recomputation and stalls of the whole chain; infinite when nothing fits."""
        return float(self.roots[-1])

    def row_of(self, first: int, last: int) -> int:
        """Row of the interval first..last, stages from 0."""
        return int(kernels.row_of(first, last, self.needs.length, *self.needs.body))

    def _shelf(self, position: int, floor: Bytes, under: Costs, price_per_byte: float) -> Shelf:
        tier, sizes = self.tiers[position], self.device.start_bytes.tolist()
        stalls = np.zeros((2, len(sizes)))
        if not tier.overlapped:
            stalls[offload.WRITE] = [tier.write_seconds(size) for size in sizes]
            stalls[offload.READ] = [tier.read_seconds(size) for size in sizes]
        stalls[offload.WRITE] += price_per_byte * self.device.start_bytes
        number = 1 + sum(faster.overlapped for faster in self.tiers[:position])
        pending_seconds = np.zeros((len(under), len(sizes)))
        slower = [each for each in self.tiers[position:] if each.overlapped]
        for pending, each in enumerate(slower, start=number):
            writes = [each.write_seconds(size) for size in sizes]
            pending_seconds[pending] = np.maximum(pending_seconds[pending - 1], writes)
        return Shelf(
            due=number if tier.overlapped else 0,
            floor=floor,
            stalls=stalls,
            pending_seconds=pending_seconds,
            under=under,
            stored=np.full((*under.shape, floor.shape[1]), np.inf),
            over=np.full(under.shape, np.inf),
        )
