"""Depth-first search for a policy that costs what the convex minorants promise."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf

import numpy as np

from planner_service.solvers.minorant import Interval, MinorantTable
from planner_service.solvers.minorant_kernels import WHOLE
from planner_service.solvers.policies import TAPE, Subproblem, after_tape, split
from planner_service.solvers.solution import Cancellation

MOST_TRIES = 24
"""Decisions tried per subproblem before the best of them is taken as it is."""
MOST_SECOND_TRIES = 500
"""Decisions tried in all after a first one missed its promise."""


@dataclass
class _Frame:
    here: Subproblem
    target: float
    """No policy of this subproblem costs less, in units."""
    proposals: list[tuple[float, int]]
    tried: int = 0
    cost: float = inf
    decision: int = TAPE

    @property
    def settled(self) -> bool:
        """True when no proposal that is left can improve on `cost`."""
        left = self.proposals[self.tried : MOST_TRIES]
        return not left or self.cost <= max(self.target, left[0][0]) * (1 + WHOLE)


@dataclass
class PolicySearch:
    """Costs and decisions of the subproblems that the search has met, in units of the minorants."""

    table: MinorantTable
    cancellation: Cancellation
    _second_tries: int = 0
    _settled: dict[Subproblem, tuple[float, int]] = field(default_factory=dict)

    def run(self, free_bytes: int) -> float:
        """Cost of the best policy found for the whole chain; infinite when there is none."""
        needs = self.table.sections.needs
        root = Subproblem(0, needs.length - 1, free_bytes)
        stack = [self._frame(root)]
        while stack:
            frame = stack[-1]
            missing = None
            while missing is None and not self._done(frame):
                missing = self._try(frame)
            if missing is not None:
                stack.append(self._frame(missing))
                continue
            self.cancellation.check()
            self._settled[frame.here] = frame.cost, frame.decision
            stack.pop()
        return self._settled[root][0]

    def decide(self, here: Subproblem) -> int:
        """The decision for a subproblem that `run` has met (policies.py)."""
        body_first, body_last = self.table.sections.needs.body
        if self.table.prefix and here.last < body_first:
            return self.table.prefix.decide(here)
        if self.table.suffix and here.first > body_last:
            offset = body_last + 1
            moved = Subproblem(here.first - offset, here.last - offset, here.free_bytes)
            stored = self.table.suffix.decide(moved)
            return stored if stored == TAPE else stored + offset
        return self._settled[here][1]

    def lower_bound(self, here: Subproblem) -> float:
        """No policy of the subproblem costs less, in units."""
        level = self.table.levels.below(here.free_bytes)
        return inf if level < 0 else self._rounded(self.table.minorant(self._interval(here), level))

    def _frame(self, here: Subproblem) -> _Frame:
        interval = self._interval(here)
        proposals = self.table.propose(interval, here.free_bytes)
        return _Frame(here, self.lower_bound(here), proposals)

    def _done(self, frame: _Frame) -> bool:
        return frame.settled or (frame.cost < inf and self._second_tries >= MOST_SECOND_TRIES)

    def _try(self, frame: _Frame) -> Subproblem | None:
        """Cost the next proposal, or name the subproblem that must be settled before."""
        here, needs = frame.here, self.table.sections.needs
        _, offset = frame.proposals[frame.tried]
        if offset == TAPE:
            decision = TAPE
            children = [] if here.first == here.last else [after_tape(needs, here)]
            cost = 0.0
        else:
            decision = here.first + offset
            children = list(split(needs, here, decision))
            cost = self.table.sections.advance_units(here.first, decision)
        for child in children:
            if not self._is_short(child) and child not in self._settled:
                return child
            cost += self._cost(child)
        self._second_tries += frame.tried > 0
        frame.tried += 1
        if cost < frame.cost:
            frame.cost, frame.decision = cost, decision
        return None

    def _is_short(self, here: Subproblem) -> bool:
        body_first, body_last = self.table.sections.needs.body
        return here.last < body_first or here.first > body_last

    def _cost(self, here: Subproblem) -> float:
        if not self._is_short(here):
            return self._settled[here][0]
        level = self.table.levels.below(here.free_bytes)
        if level < 0:
            return inf
        body_first, body_last = self.table.sections.needs.body
        if self.table.prefix and here.last < body_first:
            return float(self.table.prefix.cost(here.first, here.last)[level])
        assert self.table.suffix
        offset = body_last + 1
        return float(self.table.suffix.cost(here.first - offset, here.last - offset)[level])

    def _interval(self, here: Subproblem) -> Interval:
        body_first, body_last = self.table.sections.needs.body
        inside = min(here.last, body_last) - max(here.first, body_first) + 1
        return Interval(min(here.first, body_first), max(here.last - body_last, 0), inside)

    def _rounded(self, units: float) -> float:
        if units == inf or not self.table.sections.whole_units:
            return units
        return float(ceil(units - WHOLE * max(1.0, units)))
