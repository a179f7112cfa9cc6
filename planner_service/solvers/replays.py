"""What the policies of a one-parameter strategy cost on a chain, replayed once for all budgets.

A search for the least budget asks the same strategy about the same chain again and again, and the
policies among which it chooses do not depend on the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from planner_service.chain import Chain, Policy, expand, simulate
from planner_service.solvers.polling import polled
from planner_service.solvers.solution import Cancellation

CHAINS = 4
"""Chains that are remembered: a comparison looks at one for long, and a long chain takes memory."""


class Prices(NamedTuple):
    """What a policy costs."""

    makespan: float
    """In the chain's cost unit."""
    peak_bytes: int


class Replays:
    """The prices of the policies of one chain that have been asked for."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._known: dict[tuple[Callable[[int, int], Policy], int], Prices] = {}

    def prices(
        self,
        policy_of: Callable[[int, int], Policy],
        parameter: int,
        cancellation: Cancellation | None = None,
    ) -> Prices:
        """Those of `policy_of(length, parameter)`, by the simulator. Raises Cancelled."""
        key = policy_of, parameter
        if key not in self._known:
            actions = expand(policy_of(self._chain.length, parameter))
            verdict = simulate(self._chain, polled(actions, cancellation or Cancellation()))
            self._known[key] = Prices(verdict.makespan, verdict.peak_bytes)
        return self._known[key]


@lru_cache(maxsize=CHAINS)
def replays_of(chain: Chain) -> Replays:
    """The replays of `chain` so far."""
    return Replays(chain)
