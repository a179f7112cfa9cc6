"""Depth-first search for a policy that costs what the convex minorants promise.

It follows the decision with the least promise first and settles a subproblem as soon as a policy keeps
its promise: almost always the first one tried, because minorants are met at their corners and, in
whole advances, nearly everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from planner_service.solvers.intervals import IntervalTable
from planner_service.solvers.minorant import Interval, MinorantTable, Proposal
from planner_service.solvers.policies import TAPE, Subproblem, after_tape, split
from planner_service.solvers.solution import ROUNDING, Cancellation, ScheduleTooLong

MOST_TRIES = 24
"""Decisions tried per subproblem before the best of them is taken as it is."""
MOST_DECISIONS = 120_000
"""Subproblems that are settled in about ten seconds."""
MOST_SECOND_TRIES = 500
"""Decisions tried in all after a first one missed its promise."""


class _Settled(NamedTuple):
    cost: float
    """In units."""
    decision: int


@dataclass
class _Frame:
    here: Subproblem
    least_cost: float
    proposals: list[Proposal]
    tried: int = 0
    cost: float = inf
    decision: int = TAPE

    @property
    def settled(self) -> bool:
        """True when no proposal that is left can improve on `cost`."""
        left = self.proposals[self.tried : MOST_TRIES]
        return not left or self.cost <= max(self.least_cost, left[0].least_cost) * (1 + ROUNDING)


@dataclass
class PolicySearch:
    """Costs and decisions of the subproblems that the search has met."""

    table: MinorantTable
    cancellation: Cancellation
    _second_tries: int = 0
    _settled: dict[Subproblem, _Settled] = field(default_factory=dict)

    def run(self, free_bytes: int) -> float:
        """Cost of the best policy found for the whole chain, in units; infinite when there is none.

        Raises ScheduleTooLong and Cancelled.
        """
        root = Subproblem(0, self.table.sections.needs.length - 1, free_bytes)
        stack = [self._frame(root)]
        while stack:
            self.cancellation.check()
            frame = stack[-1]
            missing = None
            while missing is None and not self._done(frame):
                missing = self._try(frame)
            if missing is not None:
                if len(stack) + len(self._settled) > MOST_DECISIONS:
                    raise ScheduleTooLong(length=root.last + 1, most_decisions=MOST_DECISIONS)
                stack.append(self._frame(missing))
                continue
            self._settled[frame.here] = _Settled(frame.cost, frame.decision)
            stack.pop()
        return self._settled[root].cost

    def least_cost(self, free_bytes: int) -> float:
        """No persistent policy of the whole chain costs less, in units."""
        root = Subproblem(0, self.table.sections.needs.length - 1, free_bytes)
        return self.table.least_cost(self._interval(root), free_bytes)

    def decide(self, here: Subproblem) -> int:
        """The decision for a subproblem that `run` has met (policies.py)."""
        part = self._part(here)
        if part is None:
            return self._settled[here].decision
        table, offset = part
        stored = table.decide(Subproblem(here.first - offset, here.last - offset, here.free_bytes))
        return stored + offset if stored >= 0 else stored

    def _frame(self, here: Subproblem) -> _Frame:
        interval = self._interval(here)
        least_cost = self.table.least_cost(interval, here.free_bytes)
        return _Frame(here, least_cost, self.table.proposals(interval, here.free_bytes))

    def _done(self, frame: _Frame) -> bool:
        return frame.settled or (frame.cost < inf and self._second_tries >= MOST_SECOND_TRIES)

    def _try(self, frame: _Frame) -> Subproblem | None:
        """Cost the next proposal, or name the subproblem that must be settled before."""
        here, sections = frame.here, self.table.sections
        stored = frame.proposals[frame.tried].stored
        decision = TAPE if stored == TAPE else here.first + stored
        if stored == TAPE:
            children = [] if here.first == here.last else [after_tape(sections.needs, here)]
            cost = 0.0
        else:
            children = list(split(sections.needs, here, decision))
            cost = sections.advance_units(here.first, decision)
        for child in children:
            child_cost = self._cost(child)
            if child_cost is None:
                return child
            cost += child_cost
        self._second_tries += frame.tried > 0
        frame.tried += 1
        if cost < frame.cost:
            frame.cost, frame.decision = cost, decision
        return None

    def _cost(self, here: Subproblem) -> float | None:
        """Cost in units; None if the subproblem must be settled first."""
        part = self._part(here)
        if part is None:
            known = self._settled.get(here)
            return None if known is None else known.cost
        level = self.table.levels.below(here.free_bytes)
        table, offset = part
        return inf if level < 0 else float(table.cost(here.first - offset, here.last - offset)[level])

    def _part(self, here: Subproblem) -> tuple[IntervalTable, int] | None:
        """The table of an interval outside the body, and where its section begins; else None."""
        body_first, body_last = self.table.sections.needs.body
        if self.table.prefix and here.last < body_first:
            return self.table.prefix, 0
        if self.table.suffix and here.first > body_last:
            return self.table.suffix, body_last + 1
        return None

    def _interval(self, here: Subproblem) -> Interval:
        body_first, body_last = self.table.sections.needs.body
        inside = min(here.last, body_last) - max(here.first, body_first) + 1
        return Interval(min(here.first, body_first), max(here.last - body_last, 0), inside)
