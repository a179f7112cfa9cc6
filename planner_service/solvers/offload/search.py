"""Which of the offload recurrence's policies to take, and how exactly its tables can be afforded.

First the tiers are taken as unlimited: one level each. Only where that policy overflows a tier do the
tables count the tier's bytes; and where counting them is too much, every byte written is given a price,
the lowest for which the policy fits (a Lagrange multiplier: less is written where it pays least).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import NamedTuple, cast

import numpy as np

from planner_service.chain import BudgetTooSmall, Chain, CheckpointNode, PlanningError, TapeNode
from planner_service.chain.tiers import Tier
from planner_service.chain.tiers_policy import TieredPolicy, expand_tiers
from planner_service.chain.tiers_simulator import simulate_tiers
from planner_service.solvers.intervals import IntervalTable, interval_additions
from planner_service.solvers.leanest import least_free_bytes
from planner_service.solvers.levels import Levels, choose_levels
from planner_service.solvers.needs import REVERSE_NEED, ChainNeeds, chain_needs
from planner_service.solvers.offload.kernels import Alone, Device
from planner_service.solvers.offload.leanest import least_free_bytes_with_tiers
from planner_service.solvers.offload.levels import TierLevels, tier_levels, unlimited_levels
from planner_service.solvers.offload.policy import build_policy
from planner_service.solvers.offload.tables import Ground, OffloadTables, alone_view, device_view, ground
from planner_service.solvers.optimal import draft_optimal
from planner_service.solvers.polling import polled
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.wide import is_wide

MOST_ADDITIONS = 1_000_000_000
"""Of one table: some tenths of a second. Levels are as many as that allows."""
MOST_LEVELS = 2_000
FEWEST_LEVELS = 16
"""Fewer levels would round away what makes a plan good."""
MOST_TIER_ADDITIONS = 4_000_000_000
"""Of one tier's table: a few seconds."""
PRICES = 4
"""Prices tried, each with tables of its own."""
MOST_STAGES_FOR_LEAST = 2_000
"""The least budget beside the tiers takes a table of all intervals, whatever the chain."""


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


class Found(NamedTuple):
    """A policy that fits."""

    policy: TieredPolicy
    exact: bool
    """Whether no byte was rounded: the recurrence's own optimum."""
    reason: str


def find_policy(chain: Chain, budget_bytes: int, tiers: Sequence[Tier], cancellation: Cancellation) -> Found:
    """The fastest policy found. Raises BudgetTooSmall, ChainTooLong and Cancelled.

    Where byte sums leave 64 bits no tier is tried: the tables cannot hold them.
    """
    needs = chain_needs(chain)
    if is_wide(needs):
        return _of_the_device_alone(chain, budget_bytes, cancellation)
    free_bytes = budget_bytes - chain.static_bytes - chain.input_bytes
    if free_bytes < int(needs.table[:, REVERSE_NEED].min()):
        raise _too_small(chain, needs, free_bytes, tiers, cancellation)
    search = _Search.of(chain, needs, free_bytes, tuple(tiers), cancellation)
    found = search.with_unlimited_tiers() or search.with_limited_tiers()
    if found is not None and found.exact:
        return found
    candidates = [] if found is None else [found]
    candidates += search.with_prices() + _without_tiers(chain, budget_bytes, cancellation)
    if not candidates:
        raise _too_small(chain, needs, free_bytes, tiers, cancellation)
    return min(candidates, key=lambda found: search.makespan(found.policy))


@dataclass(frozen=True)
class _Search:
    """One request with its table of the device alone."""

    chain: Chain
    needs: ChainNeeds
    tiers: tuple[Tier, ...]
    cancellation: Cancellation
    device: Device
    table: IntervalTable
    levels: Levels
    alone: Alone
    base: Ground

    @classmethod
    def of(
        cls,
        chain: Chain,
        needs: ChainNeeds,
        free_bytes: int,
        tiers: tuple[Tier, ...],
        cancellation: Cancellation,
    ) -> _Search:
        """Fill the table of the device alone. Raises ChainTooLong."""
        levels = _device_levels(needs, free_bytes)
        table = IntervalTable(needs, levels, cancellation)
        device = device_view(chain, free_bytes)
        alone = alone_view(chain, needs, levels.free_bytes, table.costs, tiers)
        base = ground(needs, device, alone)
        return cls(chain, needs, tiers, cancellation, device, table, levels, alone, base)

    def makespan(self, policy: TieredPolicy) -> float:
        """Infinite when the policy overflows a tier."""
        verdict = simulate_tiers(self.chain, self.tiers, polled(expand_tiers(policy), self.cancellation))
        return verdict.makespan if verdict.legal else inf

    def with_unlimited_tiers(self) -> Found | None:
        """The policy that ignores the tiers' budgets, if it keeps them."""
        policy = self._policy(self._unlimited(), 0.0)
        if policy is None or not isfinite(self.makespan(policy)):
            return None
        return Found(policy, self.levels.exact, "the tiers have room for all that pays")

    def with_limited_tiers(self) -> Found | None:
        """The policy that counts the tiers' bytes, if there is one."""
        levels = limited_levels(self.needs, self.device, self.tiers)
        policy = self._policy(levels, 0.0)
        if policy is None:
            return None
        exact = self.levels.exact and all(level.exact for level in levels)
        return Found(policy, exact, "every byte counted" if exact else "bytes rounded down to levels")

    def with_prices(self) -> list[Found]:
        """Policies that fit because every byte written has a price, the best near the end."""
        found: list[Found] = []
        highest = float(self.needs.advance_cost_before[-1])
        low, high = highest / self.needs.length / 10, highest
        for _ in range(PRICES):
            price = (low * high) ** 0.5
            policy = self._policy(self._unlimited(), price / max(1, self.alone.landing_bytes))
            if policy is not None and isfinite(self.makespan(policy)):
                found.append(Found(policy, False, f"each state written was priced at {price:.3g}"))
                high = price
            else:
                low = price
        return found

    def _policy(self, levels: list[TierLevels], price_per_byte: float) -> TieredPolicy | None:
        tables = OffloadTables(
            self.needs, self.device, self.base, self.tiers, levels, self.cancellation, price_per_byte
        )
        if not isfinite(tables.cost):
            return None
        return build_policy(tables, self.alone, self.table.decide, self.cancellation)

    def _unlimited(self) -> list[TierLevels]:
        return [unlimited_levels(self.device.start_bytes) for _ in self.tiers]


def limited_levels(needs: ChainNeeds, device: Device, tiers: Sequence[Tier]) -> list[TierLevels]:
    """Levels of every tier, as many as their tables may have."""
    one_level = Levels(np.zeros(1, dtype=np.int64), exact=True)
    tables = (1 + len(tiers)) ** 2 * max(1, len(tiers))
    price = max(1, interval_additions(needs, one_level) * tables)
    most = max(FEWEST_LEVELS, min(MOST_LEVELS, MOST_TIER_ADDITIONS // price))
    return [tier_levels(device.start_bytes, tier.budget_bytes, most) for tier in tiers]


def _device_levels(needs: ChainNeeds, free_bytes: int) -> Levels:
    levels = choose_levels(needs, free_bytes, MOST_LEVELS)
    price = interval_additions(needs, levels)
    if price <= MOST_ADDITIONS:
        return levels
    affordable = MOST_ADDITIONS * len(levels.free_bytes) // price
    if affordable < FEWEST_LEVELS:
        raise ChainTooLong(length=needs.length)
    return choose_levels(needs, free_bytes, affordable)


def _without_tiers(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> list[Found]:
    """The optimum of the device alone, which needs no tier to fit."""
    try:
        return [_of_the_device_alone(chain, budget_bytes, cancellation)]
    except BudgetTooSmall:
        return []


def _of_the_device_alone(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Found:
    draft = draft_optimal(chain, budget_bytes, cancellation)
    nodes = cast("tuple[TapeNode | CheckpointNode, ...]", draft.policy.nodes)  # the optimum archives nothing
    return Found(TieredPolicy(nodes, draft.policy.root), False, "no transfer was worth it")


def _too_small(
    chain: Chain, needs: ChainNeeds, free_bytes: int, tiers: Sequence[Tier], cancellation: Cancellation
) -> BudgetTooSmall:
    held = chain.static_bytes + chain.input_bytes
    least = free_bytes
    if needs.length <= MOST_STAGES_FOR_LEAST:
        levels = limited_levels(needs, device_view(chain, free_bytes), tiers)
        least = least_free_bytes_with_tiers(chain, needs, tiers, levels, cancellation)
    if least <= free_bytes:  # lost to rounding, or too long to ask: what the device alone needs is enough
        least = least_free_bytes(needs, cancellation)
    return BudgetTooSmall(budget_bytes=free_bytes + held, minimum_budget_bytes=least + held)
