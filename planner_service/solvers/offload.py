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
from math import isfinite

import numpy as np

from planner_service.chain import BudgetTooSmall, Chain, PlanningError
from planner_service.chain.tiers import Tier, check_tiers
from planner_service.chain.tiers_policy import TieredPolicy, expand_tiers
from planner_service.chain.tiers_simulator import TieredVerdict, simulate_tiers
from planner_service.solvers.intervals import IntervalTable, interval_additions
from planner_service.solvers.levels import Levels, choose_levels
from planner_service.solvers.needs import REVERSE_NEED, ChainNeeds, chain_needs
from planner_service.solvers.offload_bounds import offload_bound
from planner_service.solvers.offload_leanest import least_free_bytes_with_tiers
from planner_service.solvers.offload_levels import TierLevels, tier_levels, unlimited_levels
from planner_service.solvers.offload_policy import build_policy
from planner_service.solvers.offload_tables import OffloadTables, alone_view, device_view, ground
from planner_service.solvers.solution import ROUNDING, Cancellation, Optimality
from planner_service.solvers.solve import UnsoundPlan

MOST_ADDITIONS = 1_500_000_000
"""Of a table without tiers: about a second. The device's levels are as many as that allows."""
MOST_LEVELS = 2_000
FEWEST_LEVELS = 16
"""Fewer levels would round away what makes a plan good."""


class ChainTooLong(PlanningError):
    """Offloading this many stages is too much to tabulate; `length` is their number."""

    field = "model.stages"

    def __init__(self, *, length: int) -> None:
        self.length = length
        super().__init__(
            f"{length} stages are too many for a plan with storage tiers: run several steps as one segment"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_chain_too_long, (self.length,))


def _rebuild_chain_too_long(length: int) -> ChainTooLong:
    return ChainTooLong(length=length)


@dataclass(frozen=True)
class OffloadSolution:
    """A policy with tiers that fits every budget, as the simulator saw it; fields as in `Solution`."""

    policy: TieredPolicy
    verdict: TieredVerdict
    lower_bound: float
    """No legal schedule of this chain in these budgets is faster, in the chain's cost unit."""
    optimality: Optimality
    """`optimal` over all schedules (the bound is met), `persistent` over those of the recurrence, with
    tiers that block and bytes counted exactly, `bounded` when only `lower_bound` is known."""
    reason: str
    strategy: str = "offload"
    exact_gradient: bool = True

    @property
    def bound_ratio(self) -> float:
        """Makespan by lower bound: how far from the optimum this can be, at most."""
        return self.verdict.makespan / self.lower_bound if self.lower_bound else 1.0


def solve_offload(
    chain: Chain, budget_bytes: int, tiers: Sequence[Tier], *, cancellation: Cancellation | None = None
) -> OffloadSolution:
    """The fastest policy found for `chain` with `budget_bytes` on the device and the tiers' own budgets.

    tiers: from fast to slow; their times are in the chain's cost unit. Raises BudgetTooSmall with the
    least device budget beside these tiers, InvalidChain for two tiers of one name, and Cancelled.
    """
    check_tiers(tiers)
    request = _Request(chain, chain_needs(chain), tuple(tiers), cancellation or Cancellation())
    free_bytes = budget_bytes - chain.static_bytes - chain.input_bytes
    policy, exact = request.policy(free_bytes)
    verdict = simulate_tiers(chain, tiers, expand_tiers(policy), budget_bytes)
    if not verdict.legal:
        raise UnsoundPlan(f"offload: {verdict.illegal}")
    return request.solution(free_bytes, policy, verdict, exact)


@dataclass(frozen=True)
class _Request:
    """The chain as the solvers see it, and its tiers."""

    chain: Chain
    needs: ChainNeeds
    tiers: tuple[Tier, ...]
    cancellation: Cancellation

    def policy(self, free_bytes: int) -> tuple[TieredPolicy, bool]:
        """The policy, and whether no byte was rounded. Raises BudgetTooSmall."""
        if free_bytes < int(self.needs.table[:, REVERSE_NEED].min()):
            raise self._too_small(free_bytes)
        levels = self._device_levels(free_bytes)
        table = IntervalTable(self.needs, levels, self.cancellation)
        device = device_view(self.chain, free_bytes)
        alone = alone_view(self.chain, self.needs, levels.free_bytes, table.costs, self.tiers)
        base = ground(self.needs, device, alone)
        for levels_of_tiers in (self._unlimited, self._limited):
            shelves = levels_of_tiers()
            tables = OffloadTables(self.needs, device, base, self.tiers, shelves, self.cancellation)
            if not isfinite(tables.cost):
                raise self._too_small(free_bytes)
            policy = build_policy(tables, alone, table.decide)
            if self._fits_tiers(policy):
                return policy, levels.exact and all(shelf.exact for shelf in shelves)
        raise UnsoundPlan("offload: a tier's table let it overflow")

    def _device_levels(self, free_bytes: int) -> Levels:
        levels = choose_levels(self.needs, free_bytes, MOST_LEVELS)
        price = interval_additions(self.needs, levels)
        if price <= MOST_ADDITIONS:
            return levels
        affordable = MOST_ADDITIONS * len(levels.free_bytes) // price
        if affordable < FEWEST_LEVELS:
            raise ChainTooLong(length=self.chain.length)
        return choose_levels(self.needs, free_bytes, affordable)

    def _unlimited(self) -> list[TierLevels]:
        starts = device_view(self.chain, 0).start_bytes
        return [unlimited_levels(starts) for _ in self.tiers]

    def _limited(self) -> list[TierLevels]:
        starts = device_view(self.chain, 0).start_bytes
        one_level = Levels(np.zeros(1, dtype=np.int64), exact=True)
        tables = 2 * (1 + len(self.tiers)) * max(1, len(self.tiers))
        price = max(1, interval_additions(self.needs, one_level) * tables)
        most = max(FEWEST_LEVELS, min(MOST_LEVELS, MOST_ADDITIONS // price))
        return [tier_levels(starts, tier.budget_bytes, most) for tier in self.tiers]

    def _fits_tiers(self, policy: TieredPolicy) -> bool:
        verdict = simulate_tiers(self.chain, self.tiers, expand_tiers(policy))
        return verdict.legal

    def _too_small(self, free_bytes: int) -> BudgetTooSmall:
        least = least_free_bytes_with_tiers(
            self.chain, self.needs, self.tiers, self._limited(), self.cancellation
        )
        held = self.chain.static_bytes + self.chain.input_bytes
        return BudgetTooSmall(budget_bytes=free_bytes + held, minimum_budget_bytes=least + held)

    def solution(
        self, free_bytes: int, policy: TieredPolicy, verdict: TieredVerdict, exact: bool
    ) -> OffloadSolution:
        """The policy with what is known about it."""
        bound = offload_bound(self.chain, free_bytes, self.tiers, self.cancellation)
        if bound > verdict.makespan * (1 + ROUNDING):
            raise UnsoundPlan(f"offload: makespan {verdict.makespan} is below the bound {bound}")
        blocking = not any(tier.overlapped for tier in self.tiers)
        optimality: Optimality = "persistent" if exact and blocking else "bounded"
        if verdict.makespan <= bound * (1 + ROUNDING):
            optimality, bound = "optimal", verdict.makespan
        writes = ", ".join(f"{use.write_count} writes to {use.name}" for use in verdict.tiers)
        return OffloadSolution(policy, verdict, bound, optimality, writes or "no tier was given")
