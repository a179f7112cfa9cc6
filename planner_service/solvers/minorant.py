"""Nearly homogeneous chains of any length: convex minorants, and the policies that reach them.

The minorant of the whole chain bounds every persistent policy from below. A depth-first search follows
the decisions whose minorants promise the least and stops at the first policy that keeps the promise:
almost always the first one tried, because minorants are met at their corners and, in whole advances,
nearly everywhere.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np

from planner_service.solvers import minorant_kernels as kernels
from planner_service.solvers.intervals import IntervalTable
from planner_service.solvers.levels import Levels
from planner_service.solvers.needs import STATE, TAPE_BYTES, ChainNeeds, Costs
from planner_service.solvers.sections import Sections
from planner_service.solvers.solution import Cancellation

MOST_CORNERS = 4096
"""Corners kept per row; rows with hardly any memory have one per stage."""
MOST_PROPOSALS = 512
"""Decisions looked at per subproblem."""


class Interval(NamedTuple):
    """An interval that meets the body (sections.py)."""

    s: int
    """Special stage of the prefix that it starts with, from 0; P for a body stage."""
    t: int
    """Special stage of the suffix that it ends with, from 1; 0 for a body stage."""
    n: int
    """Body stages inside."""


Proposal = tuple[float, int]
"""Least cost of a decision in units, and the decision (policies.py) relative to the interval's start."""


class MinorantTable:
    """V(n) of every family of intervals at every level, in units of one advance of a body stage."""

    def __init__(self, sections: Sections, levels: Levels, cancellation: Cancellation) -> None:
        self.sections = sections
        self.levels = levels
        self.prefix = _part_table(sections.prefix, levels, cancellation)
        tables = (sections.prefix_table, sections.body_needs[None], sections.suffix_table)
        self._states, self._tapes = (np.concatenate(tables)[:, field] for field in (STATE, TAPE_BYTES))
        self.suffix = _part_table(sections.suffix, levels, cancellation)
        self._fill(cancellation)

    def _fill(self, cancellation: Cancellation) -> None:
        sections, levels = self.sections, self.levels
        families = (len(sections.prefix_table) + 1) * (len(sections.suffix_table) + 1)
        self.ends = len(sections.suffix_table) + 1
        rows = families * len(levels.free_bytes) + 1
        most_corners = min(MOST_CORNERS, sections.body_stages + 2)
        self._prefix_costs = _all_costs(self.prefix, len(sections.prefix_table), len(levels.free_bytes))
        self._suffix_costs = _all_costs(self.suffix, len(sections.suffix_table), len(levels.free_bytes))
        self._start = np.zeros(rows, dtype=np.int64)
        self._size = np.zeros(rows, dtype=np.int64)
        capacity, done = most_corners + 1 + 32 * rows, False
        while not done:
            self._corner_x = np.empty(capacity, dtype=np.int64)
            self._corner_cost = np.empty(capacity)
            done = kernels.fill_minorants(
                levels.free_bytes,
                sections.prefix_table,
                sections.body_needs,
                sections.suffix_table,
                levels.floor(sections.prefix_table[:, STATE]),
                levels.floor(sections.prefix_table[:, TAPE_BYTES]),
                levels.floor(sections.body_needs[STATE : STATE + 1])[0],
                levels.floor(sections.body_needs[TAPE_BYTES : TAPE_BYTES + 1])[0],
                levels.floor(sections.suffix_table[:, STATE]),
                sections.prefix_weights,
                sections.suffix_weights,
                self._prefix_costs,
                self._suffix_costs,
                sections.body_stages,
                most_corners,
                self._start,
                self._size,
                self._corner_x,
                self._corner_cost,
                cancellation.flag,
            )
            cancellation.check()
            capacity *= 2
        self._bounds = np.empty(MOST_PROPOSALS)
        self._stored = np.empty(MOST_PROPOSALS, dtype=np.int64)

    def minorant(self, here: Interval, level: int) -> float:
        """V of an interval at `level`, in units; infinite where nothing fits."""
        row = (here.s * self.ends + here.t) * len(self.levels.free_bytes) + level
        return float(
            kernels.value_at(row, here.n, self._start, self._size, self._corner_x, self._corner_cost)
        )

    def propose(self, here: Interval, free_bytes: int) -> list[Proposal]:
        """Decisions for an interval that meets the body, the most promising first."""
        sections, levels = self.sections, self.levels
        level = levels.below(free_bytes)
        if level < 0:
            return []
        found = kernels.propose(
            *here,
            level,
            free_bytes,
            np.searchsorted(levels.free_bytes, free_bytes - self._states, side="right") - 1,
            levels.below(free_bytes - self._tapes[here.s]),
            len(levels.free_bytes),
            sections.prefix_table,
            sections.body_needs,
            sections.suffix_table,
            sections.prefix_weights,
            sections.suffix_weights,
            self._prefix_costs,
            self._suffix_costs,
            sections.whole_units,
            self._start,
            self._size,
            self._corner_x,
            self._corner_cost,
            self._bounds,
            self._stored,
        )
        return list(zip(self._bounds[:found].tolist(), self._stored[:found].tolist(), strict=True))


def _part_table(part: ChainNeeds | None, levels: Levels, cancellation: Cancellation) -> IntervalTable | None:
    return None if part is None else IntervalTable(part, levels, cancellation)


def _all_costs(table: IntervalTable | None, stages: int, levels: int) -> Costs:
    """Costs of every interval of a section, shape (stages, stages, levels), in units."""
    costs = np.full((stages, stages, levels), inf)
    if table is not None:
        for first in range(stages):
            for last in range(first, stages):
                costs[first, last] = table.cost(first, last)
    return costs
