"""The two-branch recurrence over intervals of stages: any chain that is short enough to tabulate."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from planner_service.solvers import kernels
from planner_service.solvers.leanest import least_of_intervals
from planner_service.solvers.levels import Levels
from planner_service.solvers.needs import STATE, TAPE_BYTES, Bytes, ChainNeeds, Costs
from planner_service.solvers.policies import Subproblem
from planner_service.solvers.solution import Cancellation


def additions_per_level(needs: ChainNeeds) -> int:
    """Roughly how many additions a table of intervals takes at each level: its price."""
    first, last = needs.body
    length = needs.length
    body, special = last - first + 1, length - (last - first + 1)
    # Intervals by where they start and end, times the places for a checkpoint in each.
    return body**2 // 2 * (1 + special) + body * special**2 + special**3 // 6


def interval_additions(needs: ChainNeeds, levels: Levels) -> int:
    """The price of a table of intervals at these levels, in additions."""
    return additions_per_level(needs) * len(levels.free_bytes)


class IntervalTable:
    """Least recomputation cost of every interval at every level, and the policy that it implies."""

    def __init__(self, needs: ChainNeeds, levels: Levels, cancellation: Cancellation) -> None:
        self._needs = needs
        self._levels = levels
        self.costs = np.empty((kernels.row_count(needs.length, *needs.body), len(levels.free_bytes)))
        self._stages = stages_of(needs)
        kernels.fill_costs(
            self._stages,
            levels.free_bytes,
            levels.floor(needs.table[:, STATE]),
            levels.floor(needs.table[:, TAPE_BYTES]),
            self.costs,
            cancellation.flag,
        )
        cancellation.check()

    def cost(self, first: int, last: int) -> Costs:
        """Recomputation cost of stages first..last at every level."""
        row: Costs = self.costs[kernels.row_of(first, last, self._needs.length, *self._needs.body)]
        return row

    def decide(self, here: Subproblem) -> int:
        """TAPE or the stage after which to store a checkpoint (policies.py). The true free bytes may lie
        between levels: what rounding lost further up is found again here.
        """
        stored = kernels.decide(self._stages, *here, self._levels.free_bytes, self.costs)
        if stored == kernels.NOTHING_FITS:
            # Rounding hid what fits: any decision whose sides fit to the byte will do.
            return kernels.decide_lean(self._stages, *here, self._least)
        return stored

    @cached_property
    def _least(self) -> Bytes:
        return least_of_intervals(self._needs, Cancellation())


def stages_of(needs: ChainNeeds) -> kernels.Stages:
    """The chain as the kernels take it."""
    return kernels.Stages(needs.kind, needs.table, needs.advance_cost_before, *needs.body)
