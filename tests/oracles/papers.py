"""Closed forms and recurrences of the papers, written from their equations, in their units.

G16 = Gruslys et al. 2016, arXiv:1606.03401. Costs count forward operations of both phases.
"""

from __future__ import annotations

from functools import cache
from math import comb

from planner_service.chain import Chain, Stage, StageRun


def revolve_advances(steps: int, slots: int) -> int:
    """Griewank & Walther's least number of advances with `slots` snapshots, the start included.

    Rev(l, c) = r·l - binom(c + r, c + 1) with r the least integer for which binom(c + r, c) >= l.
    """
    repetitions = 0
    while comb(slots + repetitions, slots) < steps:
        repetitions += 1
    return repetitions * steps - comb(slots + repetitions, slots + 1)


def hidden_cost(steps: int, slots: int) -> int:
    """C_HSM(t, m) = t + Rev(t, m): hidden states only; m counts the initial one."""
    return steps + revolve_advances(steps, slots)


def internal_cost(steps: int, slots: int) -> int:
    """C_ISM(t, m) = Rev(t + 1, m): internal states only; m counts the one being computed."""
    return revolve_advances(steps + 1, slots)


@cache
def hidden_recurrence(steps: int, slots: int) -> int:
    """G16 equations 1 to 3, as printed."""
    if steps == 1:
        return 1
    if slots == 1:
        return steps * (steps + 1) // 2
    return min(
        y + hidden_recurrence(steps - y, slots - 1) + hidden_recurrence(y, slots) for y in range(1, steps)
    )


@cache
def internal_recurrence(steps: int, slots: int) -> int:
    """G16 equations 4 and 5, as printed."""
    if steps == 0:
        return 0
    if slots == 1:
        return steps * (steps + 1) // 2
    return min(
        y + internal_recurrence(y - 1, slots) + internal_recurrence(steps - y, slots - 1)
        for y in range(1, steps + 1)
    )


def unit_chain(steps: int, *, beta: int) -> Chain:
    """The papers' chain in our terms: unit forwards, state 1, tape beta, no gradients, no workspaces.

    With backward_cost 0 its makespan counts forward operations.
    """
    step = Stage(
        forward_cost=1,
        taped_forward_cost=1,
        backward_cost=0,
        state_bytes=1,
        tape_bytes=beta,
        gradient_bytes=0,
    )
    return Chain((StageRun(steps, step),))
