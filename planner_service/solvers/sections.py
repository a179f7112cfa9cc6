"""A nearly homogeneous chain in three sections: a few special stages, a long body, a few special ones.

An interval that meets the body is named by where it starts (special stage s of the prefix, or s = P:
a body stage), where it ends (t = 0: a body stage, or special stage t of the suffix) and how many body
stages n it holds. So an unrolled model of a million steps has a handful of *families* of intervals,
each a function of n.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner_service.solvers.needs import Bytes, ChainNeeds, Costs, NeedsRun, StageNeeds

MOST_CELLS = 40_000_000
"""Families times body stages that are still worth a table."""
NEXT_TO_NOTHING = 2.0**-40
"""All advances of a body together weigh less than one of any other stage, and doubles still count them."""
MOST_UNITS = 1e200
"""Of one stage: beside it nothing else counts, and sums of such stages stay finite."""


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
        """What a body stage counts as, in the chain's cost unit: what it costs to advance, or next to nothing
        beside every other stage where it is free. Never 0.
        """
        costs = [run.needs.advance_cost for run in self.needs.runs]
        least = min((cost for cost in costs if cost), default=1.0)
        return max(costs[self.needs.body_run], least * NEXT_TO_NOTHING, sys.float_info.min)

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
        return bool((advanced == np.round(advanced)).all())

    def _part(self, runs: tuple[NeedsRun, ...]) -> ChainNeeds | None:
        if not runs:
            return None
        scaled = (NeedsRun(run.count, self._in_units(run.needs)) for run in runs)
        return ChainNeeds(tuple(scaled), len(runs) - 1)

    def _in_units(self, stage: StageNeeds) -> StageNeeds:
        return stage._replace(advance_cost=min(stage.advance_cost / self.unit_cost, MOST_UNITS))


def _weights(part: ChainNeeds | None) -> Costs:
    if part is None:
        return np.empty(0)
    weights: Costs = part.advance_cost[part.kind]
    return weights


def _per_stage(part: ChainNeeds | None) -> Bytes:
    return np.empty((0, 7), dtype=np.int64) if part is None else part.table[part.kind]
