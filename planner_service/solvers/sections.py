"""A nearly homogeneous chain in three sections: a few special stages, a long body, a few special ones.

An interval that meets the body is named by where it starts (special stage s of the prefix, or s = P:
a body stage), where it ends (t = 0: a body stage, or special stage t of the suffix) and how many body
stages n it holds. So an unrolled model of a million steps has a handful of *families* of intervals,
each a function of n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner_service.solvers.needs import Bytes, ChainNeeds, Costs, NeedsRun

MOST_CELLS = 40_000_000
"""Families times body stages that are still worth a table."""


@dataclass(frozen=True)
class Sections:
    """Prefix, body and suffix of a chain; the unit of cost is one advance of a body stage."""

    needs: ChainNeeds

    @cached_property
    def prefix(self) -> ChainNeeds | None:
        """The stages before the body, costs in units; None if there are none."""
        return self._part(self.needs.runs[: self.needs.body_run])

    @cached_property
    def suffix(self) -> ChainNeeds | None:
        """The stages after the body, costs in units; None if there are none."""
        return self._part(self.needs.runs[self.needs.body_run + 1 :])

    @property
    def body_stages(self) -> int:
        """N, the number of stages of the body."""
        return self.needs.runs[self.needs.body_run].count

    @cached_property
    def families(self) -> int:
        """(P + 1)(S + 1), the number of families of intervals."""
        first, last = self.needs.body
        return (first + 1) * (self.needs.length - last)

    @property
    def nearly_homogeneous(self) -> bool:
        """True when working by families is cheap and pays."""
        return self.families <= self.body_stages and self.families * self.body_stages <= MOST_CELLS

    @cached_property
    def prefix_table(self) -> Bytes:
        """Byte fields per prefix stage, shape (P, 7)."""
        return _per_stage(self.prefix)

    @cached_property
    def body_needs(self) -> Bytes:
        """Byte fields of a body stage, shape (7,)."""
        row: Bytes = self.needs.table[self.needs.body_run]
        return row

    @cached_property
    def suffix_table(self) -> Bytes:
        """Byte fields per suffix stage, shape (S, 7)."""
        return _per_stage(self.suffix)

    @cached_property
    def unit_cost(self) -> float:
        """Cost of advancing a body stage, in the chain's cost unit."""
        return self.needs.runs[self.needs.body_run].needs.advance_cost

    @cached_property
    def prefix_weights(self) -> Costs:
        """Advance costs of the prefix stages, in units; shape (P,)."""
        return _weights(self.prefix)

    @cached_property
    def suffix_weights(self) -> Costs:
        """Advance costs of the suffix stages, in units; shape (S,)."""
        return _weights(self.suffix)

    @property
    def convex(self) -> bool:
        """True when convex minorants apply: storing a body state or tape must take something."""
        stage = self.needs.runs[self.needs.body_run].needs
        return self.nearly_homogeneous and min(stage.state_bytes, stage.tape_bytes) > 0

    def advance_units(self, first: int, last: int) -> float:
        """Cost of advancing the stages first..last (from 0), in units."""
        return self._units_before(last + 1) - self._units_before(first)

    def _units_before(self, stage: int) -> float:
        body_first, body_last = self.needs.body
        before = float(self._prefix_before[min(stage, body_first)])
        inside = min(max(stage - body_first, 0), self.body_stages)
        return before + inside + float(self._suffix_before[max(stage - body_last - 1, 0)])

    @cached_property
    def _prefix_before(self) -> Costs:
        return np.concatenate(([0.0], np.cumsum(self.prefix_weights)))

    @cached_property
    def _suffix_before(self) -> Costs:
        return np.concatenate(([0.0], np.cumsum(self.suffix_weights)))

    @cached_property
    def whole_units(self) -> bool:
        """True when every cost that can occur is a whole number of units."""
        advanced = np.concatenate((self.prefix_weights, self.suffix_weights[:-1]))
        return bool((advanced == np.round(advanced)).all()) and self.unit_cost > 0

    def _part(self, runs: tuple[NeedsRun, ...]) -> ChainNeeds | None:
        if not runs:
            return None
        # A free body leaves no unit: then the number of advances is what gets minimised.
        scaled = (
            run.needs._replace(advance_cost=run.needs.advance_cost / self.unit_cost if self.unit_cost else 1)
            for run in runs
        )
        counts = (run.count for run in runs)
        return ChainNeeds(tuple(map(NeedsRun, counts, scaled)), len(runs) - 1)


def _weights(part: ChainNeeds | None) -> Costs:
    if part is None:
        return np.empty(0)
    weights: Costs = part.advance_cost[part.kind]
    return weights


def _per_stage(part: ChainNeeds | None) -> Bytes:
    return np.empty((0, 7), dtype=np.int64) if part is None else part.table[part.kind]
