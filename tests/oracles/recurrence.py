"""The two-branch recurrence of docs/memory_model.md, as it stands there: plain recursion, whole bytes.

For small chains only. The solvers must find the same costs by whatever means they like.
"""

from __future__ import annotations

from functools import cache
from math import inf

from planner_service.chain import Chain


def persistent_optimum(chain: Chain, budget_bytes: int) -> float | None:
    """C(1, L, budget - static - a_0), or None when it is infinite."""
    length = chain.length
    stages = [None, *chain.stages()]
    state = [chain.state_bytes(index) for index in range(length + 1)]
    gradient = [chain.gradient_bytes(index) for index in range(length + 1)]

    @cache
    def cost(first: int, last: int, room: int) -> float:
        if first > last:
            return 0
        return min(tape_first(first, last, room), checkpoint(first, last, room))

    def tape_first(first: int, last: int, room: int) -> float:
        stage = stages[first]
        taping = gradient[last] + stage.tape_bytes + stage.taped_forward_workspace_bytes
        reversing = gradient[first] + stage.tape_bytes + gradient[first - 1] + stage.backward_workspace_bytes
        if room < max(taping, reversing):
            return inf
        here = stage.taped_forward_cost + stage.backward_cost
        return here + cost(first + 1, last, room - stage.tape_bytes)

    def checkpoint(first: int, last: int, room: int) -> float:
        best, advanced = inf, 0.0
        for middle in range(first, last):
            stage = stages[middle]
            before = state[middle - 1] if middle > first else 0
            if room < gradient[last] + before + state[middle] + stage.forward_workspace_bytes:
                break
            advanced += stage.forward_cost
            right = cost(middle + 1, last, room - state[middle])
            best = min(best, advanced + right + cost(first, middle, room))
        return best

    found = cost(1, length, budget_bytes - chain.static_bytes - chain.input_bytes)
    return None if found == inf else found


def least_budget(chain: Chain) -> int:
    """The least budget in bytes at which the recurrence is finite, by bisection between 0 and plenty."""
    too_small, enough = -1, 1
    while persistent_optimum(chain, enough) is None:
        too_small, enough = enough, 2 * enough
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if persistent_optimum(chain, middle) is None:
            too_small = middle
        else:
            enough = middle
    return enough
