"""Nearly homogeneous chains of any length: their convex minorants, and what those promise."""

from __future__ import annotations

from math import ceil, inf
from typing import NamedTuple

import numpy as np

from planner_service.solvers.intervals import IntervalTable
from planner_service.solvers.levels import Levels
from planner_service.solvers.minorant_kernels import Branches, Families, Rows, fill_minorants, value_at
from planner_service.solvers.needs import STATE, TAPE_BYTES, Bytes, ChainNeeds, Costs
from planner_service.solvers.proposals import propose
from planner_service.solvers.sections import Sections
from planner_service.solvers.solution import ROUNDING, Cancellation

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


class Proposal(NamedTuple):
    """A decision that may be the best one."""

    least_cost: float
    """In units; whole where every cost is."""
    stored: int
    """TAPE, or how many stages after the interval's first one to store."""


class MinorantTable:
    """V(n) of every family of intervals at every level, in units of one advance of a body stage."""

    def __init__(self, sections: Sections, levels: Levels, cancellation: Cancellation) -> None:
        self.sections = sections
        self.levels = levels
        self.prefix = _part_table(sections.prefix, levels, cancellation)
        self.suffix = _part_table(sections.suffix, levels, cancellation)
        parts = (sections.prefix_table, sections.body_needs[None], sections.suffix_table)
        self._needs: Bytes = np.concatenate(parts)
        self._families = self._describe()
        self._rows = self._fill(cancellation)
        self._bounds = np.empty(MOST_PROPOSALS + len(self._needs))
        self._stored = np.empty(len(self._bounds), dtype=np.int64)

    def least_cost(self, here: Interval, free_bytes: int) -> float:
        """No persistent policy of the interval costs less, in units; infinite where nothing fits."""
        level = self.levels.below(free_bytes)
        if level < 0:
            return inf
        row = (here.s * self._families.ends + here.t) * len(self.levels.free_bytes) + level
        return self._whole(float(value_at(self._rows, row, here.n)))

    def proposals(self, here: Interval, free_bytes: int) -> list[Proposal]:
        """Decisions for an interval, the most promising first."""
        level = self.levels.below(free_bytes)
        if level < 0:
            return []
        found = propose(
            self._families,
            self._rows,
            *here,
            free_bytes,
            level,
            self.levels.below(free_bytes - int(self._needs[here.s, TAPE_BYTES])),
            np.searchsorted(self.levels.free_bytes, free_bytes - self._needs[:, STATE], side="right") - 1,
            self._bounds,
            self._stored,
        )
        bounds, stored = self._bounds[:found].tolist(), self._stored[:found].tolist()
        made = (Proposal(self._whole(bound), at) for bound, at in zip(bounds, stored, strict=True))
        return sorted((one for one in made if one.least_cost < inf), key=lambda one: one.least_cost)

    def _whole(self, units: float) -> float:
        if units == inf or not self.sections.whole_units:
            return units
        return float(ceil(units - ROUNDING * max(1.0, units)))

    def _describe(self) -> Families:
        sections, levels = self.sections, self.levels
        count = len(levels.free_bytes)
        weights = (sections.prefix_weights, [0.0], sections.suffix_weights)
        return Families(
            levels=levels.free_bytes,
            needs=self._needs,
            state_floor=levels.floor(self._needs[:, STATE]),
            tape_floor=levels.floor(self._needs[:, TAPE_BYTES]),
            advance_before=np.cumsum(np.concatenate(([0.0], *weights))),
            prefix_costs=_all_costs(self.prefix, len(sections.prefix_table), count),
            suffix_costs=_all_costs(self.suffix, len(sections.suffix_table), count),
            prefixes=len(sections.prefix_table),
            ends=len(sections.suffix_table) + 1,
            body_stages=sections.body_stages,
        )

    def _fill(self, cancellation: Cancellation) -> Rows:
        rows = self.sections.families * len(self.levels.free_bytes) + 1
        most_corners = min(MOST_CORNERS, self.sections.body_stages + 2)
        branches = _no_branches(len(self._needs) + 4)
        capacity, done = most_corners + 1 + 32 * rows, False
        while not done:
            table = _no_rows(rows, capacity)
            done = fill_minorants(self._families, table, branches, most_corners, cancellation.flag)
            cancellation.check()
            capacity *= 2
        return table


def _no_rows(rows: int, capacity: int) -> Rows:
    start, size = np.zeros((2, rows), dtype=np.int64)
    return Rows(start, size, np.empty(capacity, dtype=np.int64), np.empty(capacity))


def _no_branches(most: int) -> Branches:
    whole, real = np.zeros((4, most), dtype=np.int64), np.zeros((2, most))
    return Branches(whole[0], whole[1], real[0], real[1], whole[2], whole[3], np.zeros(3, np.int64))


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
