"""The recurrences of the memory-efficient BPTT paper, in its own units and semantics.

Source: Gruslys, Munos, Danihelka, Lanctot, Graves (2016), arXiv:1606.03401. Cost is the total number of
forward operations over the forward and the backward pass; backward operations are not counted.

    t  steps to back-propagate through
    m  memory slots. HSM and MSM: hidden states, the initial one included, the working core free.
       ISM: internal states, the one being computed included, the initial hidden state free.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from planner_service.solvers.compiled import kernel

Operations = NDArray[np.int64]

UNREACHABLE = 2**40
"""Stands for infinity in tables of operations."""


def revolve_advances(steps: int, slots: int) -> int:
    """Fewest advances to reverse `steps` steps with `slots` checkpoints, the start's included.

    r·l − binom(c + r, c + 1) with the least r for which binom(c + r, c) >= l: Griewank, Walther (2000),
    algorithm 799. O(r) time. Raises ValueError unless both are positive.
    """
    if steps < 1 or slots < 1:
        raise ValueError(f"steps={steps} and slots={slots} must be positive")
    repetitions = 0
    while comb(slots + repetitions, slots) < steps:
        repetitions += 1
    return repetitions * steps - comb(slots + repetitions, slots + 1)


def hidden_operations(steps: int, slots: int) -> int:
    """C(t, m) of BPTT-HSM (section 3.1, equations 1 to 3), in closed form: t + the advances of revolve."""
    return steps + revolve_advances(steps, slots)


def internal_operations(steps: int, slots: int) -> int:
    """C(t, m) of BPTT-ISM (section 3.2, equations 4 and 5), in closed form."""
    return revolve_advances(steps + 1, slots)


def mixed_operations(steps: int, slots: int, *, alpha: int, beta: int | None = None) -> Operations:
    """C(t, m) of BPTT-MSM for every t up to `steps` and m up to `slots`, shape (steps + 1, slots + 1).

    alpha: size of an internal state in hidden states. beta: its size when its input state is stored
    anyway (section 3.4, equation 10); without it equation 7. Column 0 is unreachable but for t = 0.
    O(steps² · slots) time. Raises ValueError for sizes below 1.
    """
    beta = alpha if beta is None else beta
    if min(steps, slots, alpha, beta) < 1:
        raise ValueError(f"steps={steps}, slots={slots}, alpha={alpha}, beta={beta} must be positive")
    table = np.full((steps + 1, slots + 1), UNREACHABLE, dtype=np.int64)
    fill_mixed(table, alpha, beta)
    return table


@kernel
def fill_mixed(table: Operations, alpha: int, beta: int) -> None:
    """Equations 6 to 10; table[t, m] = C(t, m)."""
    table[0] = 0
    for slots in range(1, table.shape[1]):
        table[1, slots] = 1
        for steps in range(2, table.shape[0]):
            best = UNREACHABLE
            for y in range(1, steps + 1):
                if y < steps and slots > 1:
                    best = min(best, y + table[y, slots] + table[steps - y, slots - 1])
                left = slots - (beta if y == 1 else alpha)
                if y == steps:
                    # Nothing comes after: the working core itself is propagated back, unstored.
                    best = min(best, y + table[y - 1, slots])
                elif left > 0:
                    best = min(best, y + table[y - 1, slots] + table[steps - y, left])
            table[steps, slots] = best
