"""Checkpoints in storage tiers: host memory, a disk.

Source: the blocking recurrence is that of Herrmann, Pallez (2020), "H-Revolve: a framework for adjoint
computation on synchronous hierarchical platforms", ACM TOMS 46(2), in bytes and with tapes: below the
tiers stands the two-branch recurrence of DESIGN.md, section 3, and the cursor of an advance is charged.

Notation, for stages i..j, M the device's free bytes, tiers 1..K from fast to slow:
    D(i, j, m)      the device alone with m free bytes, x_{i-1} held by somebody else
    U_0(i, j)       D(i, j, M - a_{i-1}): x_{i-1} is loose, and kept until stage i is reversed
    V_k(i, j, s)    x_{i-1} is loose and in tier k, which has s bytes left
    U_k(i, j)       min(U_{k-1}(i, j), write_k + V_k(i, j, S_k - a_{i-1}))
    V_k(i, j, s)    min(U_{k-1}(i, j), min over y of f_i + … + f_y + read_k + V_k(i, y, s)
                        + min(U_{k-1}(y+1, j), write_k + V_k(y+1, j, s - a_y)))
    W(j)            min(D(1, j, M), min over y of f_1 + … + f_y + U_K(y+1, j) + W(y)): x_0 is held

Guarantee: with tiers that block, the cheapest schedule of H-Revolve's kind: a checkpoint has one home
until its stage is reversed, and faster homes are taken after slower ones. With overlapped tiers the
transfers run beside the computation: a write while the next stages are advanced, a read while the
piece before it is reversed, into a buffer set aside for it. Reported with a lower bound, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner_service.chain import BudgetTooSmall, Chain
from planner_service.chain.tiers import Tier, check_tiers
from planner_service.chain.tiers_policy import TieredPolicy, expand_tiers
from planner_service.chain.tiers_simulator import TieredVerdict, simulate_tiers
from planner_service.solvers.bounds import knapsack_bound
from planner_service.solvers.intervals import IntervalTable
from planner_service.solvers.levels import choose_levels
from planner_service.solvers.needs import REVERSE_NEED, Bytes, ChainNeeds, chain_needs
from planner_service.solvers.offload_policy import build_policy
from planner_service.solvers.offload_tables import DeviceTable, OffloadTables, Surroundings, surroundings
from planner_service.solvers.solution import Cancellation, Optimality


@dataclass(frozen=True)
class OffloadSolution:
    """A policy with tiers that fits every budget, as the simulator saw it; fields as in `Solution`."""

    policy: TieredPolicy
    verdict: TieredVerdict
    lower_bound: float
    optimality: Optimality
    reason: str
    strategy: str = "offload"
    exact_gradient: bool = True


def solve_offload(
    chain: Chain, budget_bytes: int, tiers: Sequence[Tier], *, cancellation: Cancellation | None = None
) -> OffloadSolution:
    """The cheapest policy found for `chain` with `budget_bytes` on the device and the tiers' own budgets.

    tiers: from fast to slow. Raises BudgetTooSmall with the least device budget beside these tiers,
    InvalidChain for tiers of one name, and Cancelled.
    """
    check_tiers(tiers)
    cancellation = cancellation or Cancellation()
    needs = chain_needs(chain)
    free_bytes = budget_bytes - chain.static_bytes - chain.input_bytes
    instance = _Instance(chain, needs, surroundings(chain, needs), tuple(tiers), cancellation)
    device = instance.device_table(free_bytes)
    if device is None:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=0)
    policy = build_policy(instance.tables(device))
    verdict = simulate_tiers(chain, tiers, expand_tiers(policy), budget_bytes)
    return OffloadSolution(policy, verdict, 0, "bounded", "")


@dataclass(frozen=True)
class _Instance:
    """One request: the chain as the kernels see it, and the tiers."""

    chain: Chain
    needs: ChainNeeds
    around: Surroundings
    tiers: tuple[Tier, ...]
    cancellation: Cancellation

    def device_table(self, free_bytes: int) -> DeviceTable | None:
        levels = choose_levels(self.needs, free_bytes, 500)
        table = IntervalTable(self.needs, levels, self.cancellation)
        return DeviceTable(self.needs, free_bytes, levels.free_bytes, table.costs)

    def tables(self, device: DeviceTable) -> OffloadTables:
        levels = [self._closure(tier.budget_bytes) for tier in self.tiers]
        return OffloadTables(device, self.around, self.tiers, levels, self.cancellation)

    def _closure(self, budget_bytes: int) -> Bytes:
        values = {budget_bytes}
        for size in self.around.start_bytes[1:].tolist():
            values |= {v - size for v in values if v >= size}
        return np.array(sorted(values), dtype=np.int64)
