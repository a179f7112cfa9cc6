"""Chains whose byte sums leave 64 bits: the same recurrence in whole numbers of any size.

Nobody trains in exabytes, but a request may say so, and then the answer must be right as well. Plain
Python, for short chains only.
"""

from __future__ import annotations

from math import inf

from planner_service.chain import InvalidChain
from planner_service.solvers.draft import Draft
from planner_service.solvers.needs import ChainNeeds
from planner_service.solvers.policies import TAPE, Subproblem, after_tape, build_policy, split
from planner_service.solvers.solution import Cancellation

LIMIT_BYTES = 2**61
"""Sums of needs stay inside 64-bit words up to here."""
MOST_STAGES = 40


def is_wide(needs: ChainNeeds) -> bool:
    """True when byte sums of this chain may leave 64-bit words."""
    return needs.store_all_bytes + max(max(run.needs[1:]) for run in needs.runs) * 4 > LIMIT_BYTES


class WidePlanner:
    """Costs and decisions of the subproblems met, computed when asked for."""

    def __init__(self, needs: ChainNeeds) -> None:
        if needs.length > MOST_STAGES:
            raise InvalidChain(
                f"the tapes of {needs.length} stages take {needs.store_all_bytes} bytes: beyond "
                f"{LIMIT_BYTES} bytes chains of up to {MOST_STAGES} stages are planned",
                field="model.stages",
            )
        self._needs = needs
        self._least: dict[tuple[int, int], int] = {}
        self._costs: dict[Subproblem, tuple[float, int]] = {}

    def least_bytes(self, cancellation: Cancellation) -> int:
        """Least free bytes with which the chain can be reversed."""
        cancellation.check()
        return self._least_of(0, self._needs.length - 1)

    def draft(self, free_bytes: int, cancellation: Cancellation) -> Draft:
        """The cheapest persistent policy with `free_bytes`, which must suffice."""
        cancellation.check()
        policy = build_policy(self._needs, free_bytes, lambda here: self._best(here)[1])
        return Draft("optimal", policy, "persistent", "every byte counted, in wide numbers")

    def _least_of(self, first: int, last: int) -> int:
        """Least free bytes with which the stages first..last can be reversed."""
        if (first, last) not in self._least:
            options = [self._taping_need(first, last)]
            if first < last:
                rest = self._needs.stage(first).tape_bytes + self._least_of(first + 1, last)
                options[0] = max(options[0], rest)
            for stored in range(first, last):
                right = self._needs.stage(stored).state_bytes + self._least_of(stored + 1, last)
                need = self._advance_need(first, stored, last)
                options.append(max(need, right, self._least_of(first, stored)))
            self._least[first, last] = min(options)
        return self._least[first, last]

    def _best(self, here: Subproblem) -> tuple[float, int]:
        """Recomputation cost and decision; infinite where nothing fits."""
        if here not in self._costs:
            options: list[tuple[float, int]] = [(inf, TAPE)]
            if here.free_bytes >= self._taping_need(here.first, here.last):
                single = here.first == here.last
                cost = 0.0 if single else self._best(after_tape(self._needs, here))[0]
                options.append((cost, TAPE))
            for stored in range(here.first, here.last):
                if here.free_bytes >= self._advance_need(here.first, stored, here.last):
                    right, left = split(self._needs, here, stored)
                    advanced = sum(
                        self._needs.stage(index).advance_cost for index in range(here.first, stored + 1)
                    )
                    options.append((advanced + self._best(right)[0] + self._best(left)[0], stored))
            self._costs[here] = min(options)
        return self._costs[here]

    def _taping_need(self, first: int, last: int) -> int:
        stage, end = self._needs.stage(first), self._needs.stage(last)
        return max(end.gradient_bytes + stage.tape_need_bytes, stage.reverse_need_bytes)

    def _advance_need(self, first: int, stored: int, last: int) -> int:
        needs = [self._needs.stage(first).first_advance_bytes]
        needs += [self._needs.stage(index).next_advance_bytes for index in range(first + 1, stored + 1)]
        return self._needs.stage(last).gradient_bytes + max(needs)
