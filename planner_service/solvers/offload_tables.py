"""The tables of the offload recurrence (`offload.py`) for one chain, budget and list of tiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner_service.chain import Chain
from planner_service.chain.tiers import Tier
from planner_service.solvers import kernels
from planner_service.solvers import offload_kernels as offload
from planner_service.solvers.needs import Bytes, ChainNeeds, Costs
from planner_service.solvers.solution import Cancellation

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class DeviceTable:
    """Least recomputation cost of every interval at every device level: the recurrence without tiers."""

    needs: ChainNeeds
    free_bytes: int
    """The device's free bytes beside static bytes and x_0."""
    levels: Bytes
    """Ascending, shape (K,)."""
    costs: Costs
    """Shape (rows, K)."""


@dataclass(frozen=True)
class TierTable:
    """The recurrence with one tier more; axes as in `offload_kernels`."""

    tier: Tier
    due: int
    """The number by which intervals know that a state is fetched from here next; 0 if it blocks."""
    floor: Indices
    """Level that is left when a state is written, -1 for none; shape (L, levels)."""
    stalls: Costs
    """Rows WRITE, READ and PENDING per state, shape (3, L)."""
    under: Costs
    costs: Costs
    over: Costs


@dataclass(frozen=True)
class Surroundings:
    """What both the tables and the policy's builder read of a chain beside its needs."""

    start_bytes: Bytes
    """Shape (L,): bytes of the state that stage i, from 0, reads; x_0 counts as like x_1 (see needs)."""
    reversal_before: Costs
    """Prefix sums, shape (L + 1,), of the least taping and reversing cost among interchangeable stages."""
    landing_bytes: int
    """The largest state that can be on its way back to the device."""


def surroundings(chain: Chain, needs: ChainNeeds) -> Surroundings:
    """The state sizes and reversal costs of `chain`. O(L)."""
    sizes = [chain.state_bytes(index) for index in range(1, max(2, chain.length))]
    reversal = np.array([stage.taped_forward_cost + stage.backward_cost for stage in chain.stages()])
    least = np.full(len(needs.runs), np.inf)
    np.minimum.at(least, needs.kind, reversal)
    return Surroundings(
        start_bytes=np.array(sizes[:1] + sizes[: chain.length - 1], dtype=np.int64),
        reversal_before=np.concatenate(([0.0], np.cumsum(least[needs.kind]))),
        landing_bytes=max(sizes[: chain.length - 1], default=0),
    )


class OffloadTables:
    """Every table of one solve, filled."""

    def __init__(
        self,
        device: DeviceTable,
        around: Surroundings,
        tiers: Sequence[Tier],
        tier_levels: Sequence[Bytes],
        cancellation: Cancellation,
    ) -> None:
        self.device = device
        self.around = around
        overlapped = [tier for tier in tiers if tier.overlapped]
        self.read_seconds = np.array([0.0, *(tier.read_seconds(around.landing_bytes) for tier in overlapped)])
        self.tiers: list[TierTable] = []
        over = self._kept()
        for position, tier in enumerate(tiers):
            slower = [other for other in tiers[position:] if other.overlapped]
            table = self._tier_table(tier, slower, tier_levels[position], over)
            offload.fill_tier(
                *self.instance, table.floor, table.stalls, table.due, over, table.costs, table.over,
                cancellation.flag,
            )  # fmt: skip
            cancellation.check()
            self.tiers.append(table)
            over = table.over
        self.over: Costs = over[0, 0]
        self.roots: Costs = np.empty(device.needs.length)
        offload.fill_roots(
            *self.stages, device.levels, device.costs, device.free_bytes, self.over, self.roots,
            cancellation.flag,
        )  # fmt: skip
        cancellation.check()

    @property
    def cost(self) -> float:
        """Recomputation and stalls of the whole chain; infinite when nothing fits."""
        return float(self.roots[-1])

    @cached_property
    def stages(self) -> tuple[Indices, Costs, Bytes, tuple[int, int]]:
        """The kernels' view of the chain: kind, prefix sums of advancing, needs, body."""
        needs = self.device.needs
        return needs.kind, needs.advance_cost_before, needs.table, needs.body

    @cached_property
    def instance(self) -> tuple[object, ...]:
        """`stages` with the free bytes and the sizes of the states."""
        return (*self.stages, self.device.free_bytes, self.around.start_bytes)

    def _kept(self) -> Costs:
        device, around = self.device, self.around
        kept = np.full((len(self.read_seconds), len(device.costs)), np.inf)
        offload.fill_kept(
            device.needs.body, device.levels, device.costs, device.free_bytes - around.start_bytes,
            around.landing_bytes, around.reversal_before, self.read_seconds, kept,
        )  # fmt: skip
        return np.ascontiguousarray(np.broadcast_to(kept, (2, *kept.shape)))

    def _tier_table(self, tier: Tier, slower: Sequence[Tier], levels: Bytes, under: Costs) -> TierTable:
        sizes = self.around.start_bytes
        due = sum(table.tier.overlapped for table in self.tiers) + 1 if tier.overlapped else 0
        stalls = np.zeros((3, len(sizes)))
        if not tier.overlapped:
            stalls[offload.WRITE] = [tier.write_seconds(size) for size in sizes.tolist()]
            stalls[offload.READ] = [tier.read_seconds(size) for size in sizes.tolist()]
        for other in slower:
            pending = [other.write_seconds(size) for size in sizes.tolist()]
            stalls[offload.PENDING] = np.maximum(stalls[offload.PENDING], pending)
        remaining = levels[None, :] - sizes[:, None]
        return TierTable(
            tier=tier,
            due=due,
            floor=np.searchsorted(levels, remaining, side="right") - 1,
            stalls=stalls,
            under=under,
            costs=np.full((*under.shape, len(levels)), np.inf),
            over=np.full(under.shape, np.inf),
        )


def row_of(needs: ChainNeeds, first: int, last: int) -> int:
    """Row of the interval first..last, stages from 0."""
    return int(kernels.row_of(first, last, needs.length, *needs.body))
