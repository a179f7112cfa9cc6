"""The least device memory with which a chain can be reversed beside its tiers: what a refusal names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner_service.chain import Chain
from planner_service.chain.tiers import Tier
from planner_service.solvers import kernels
from planner_service.solvers.intervals import stages_of
from planner_service.solvers.leanest import fill_least_of_intervals, least_free_bytes
from planner_service.solvers.needs import Bytes, ChainNeeds
from planner_service.solvers.offload import kernels as offload
from planner_service.solvers.offload.kernels import Device
from planner_service.solvers.offload.levels import TierLevels
from planner_service.solvers.offload.tables import Ground, OffloadTables, device_view
from planner_service.solvers.solution import Cancellation


def least_free_bytes_with_tiers(
    chain: Chain,
    needs: ChainNeeds,
    tiers: Sequence[Tier],
    levels: Sequence[TierLevels],
    cancellation: Cancellation,
) -> int:
    """Least free bytes (beyond static bytes and x_0) for which the offload recurrence has a policy.

    A search by halves over budgets, each tried on tables that say only whether something fits.
    O(log(bytes)) times the price of the tables, after O(L^3) for the chain without tiers.
    """
    least = np.empty((needs.length, needs.length), dtype=np.int64)
    fill_least_of_intervals(needs.table[needs.kind], least, cancellation.flag)
    cancellation.check()
    low, high = 0, least_free_bytes(needs, cancellation)
    while low < high:
        middle = (low + high) // 2
        device = device_view(chain, middle)
        base = _fitting(needs, device, least, 1 + sum(tier.overlapped for tier in tiers))
        tables = OffloadTables(needs, device, base, tiers, levels, cancellation)
        low, high = (low, middle) if np.isfinite(tables.cost) else (middle + 1, high)
    return low


def _fitting(needs: ChainNeeds, device: Device, least: Bytes, dues: int) -> Ground:
    """The device alone, as a ground that costs nothing where it can stand."""
    kept = np.full((dues, kernels.row_count(needs.length, *needs.body)), np.inf)
    held = np.empty(needs.length)
    offload.fill_fitting(stages_of(needs), device, least, kept, held)
    return Ground(kept, held)
