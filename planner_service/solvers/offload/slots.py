"""Two and more storage levels in the papers' own units: slots of one state, equal steps, blocking transfers.

Sources: Disk-Revolve is Aupy, Herrmann, Hovland, Robert (2016), "Optimal multistage algorithm for
adjoint computation", SIAM J. Sci. Comput. 38(3); H-Revolve is Herrmann, Pallez (2020), "H-Revolve: a
framework for adjoint computation on synchronous hierarchical platforms", ACM TOMS 46(2).

Notation of this file (the papers'):
    l    steps to reverse, less one: a table's index 0 is one step
    uf   cost of a forward step        ub   cost of a backward step
    c_k  slots of level k, w_k and r_k the cost of writing and reading one; level 0 is the fastest
The working state of a running step is free, and nothing is kept of a step but its state: a step is
recomputed by its own backward step. `solve_offload` plans in bytes and charges all of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from planner_service.solvers.compiled import allocating_kernel
from planner_service.solvers.needs import Costs


class Level(NamedTuple):
    """One storage level of H-Revolve; times are costs."""

    slots: int
    write_cost: float
    read_cost: float


def hrevolve_cost(
    steps: int, levels: Sequence[Level], *, forward_cost: float = 1, backward_cost: float = 1
) -> Costs:
    """Least cost of reversing 1..steps steps with all slots of all levels, shape (steps,).

    Entry l is opt_{K-1}(l, c_{K-1}), for l + 1 steps. Optimal where every level is cheaper to write
    and to read than the next. O(steps^2 · slots) time, O(steps · slots) memory.
    """
    index = np.arange(steps)
    # Below level 0: one step needs no slot at all; from one slot, every step starts at the beginning.
    unwritten = np.where(index == 0, backward_cost, np.inf)
    restarts = (index + 1) * backward_cost + index * (index + 1) / 2 * forward_cost
    written = restarts + index * (levels[0].read_cost if levels else np.inf)
    for level in levels:
        opt = np.empty((steps, level.slots + 1))
        _fill_level(unwritten, written, level.write_cost, level.read_cost, forward_cost, opt)
        unwritten = written = np.ascontiguousarray(opt[:, level.slots])
    return unwritten


def disk_revolve_cost(
    steps: int,
    memory_slots: int,
    *,
    write_cost: float,
    read_cost: float,
    forward_cost: float = 1,
    backward_cost: float = 1,
) -> tuple[Costs, Costs, Costs]:
    """(opt_0, opt_1D, opt_inf), each of shape (steps,), with `memory_slots` slots and an unlimited disk.

    opt_0 uses no disk; opt_1D reverses what starts at a disk checkpoint and writes no other; opt_inf
    writes as many as pay. O(steps^2 · memory_slots) time.
    """
    opt_0 = hrevolve_cost(
        steps, [Level(memory_slots, 0, 0)], forward_cost=forward_cost, backward_cost=backward_cost
    )
    opt_1d, opt_inf = np.empty(steps), np.empty(steps)
    _fill_disk(opt_0, write_cost, read_cost, forward_cost, opt_1d, opt_inf)
    return opt_0, opt_1d, opt_inf


@allocating_kernel
def _fill_level(
    unwritten: Costs, written: Costs, write: float, read: float, forward: float, opt: Costs
) -> None:
    """opt[l, m] of one level, m slots left: min(unwritten[l], w_k + optp[l, m]).

    unwritten: cost when the start is not stored at this level; written: when it is, and no other state.
    """
    steps, slots = opt.shape[0], opt.shape[1] - 1
    optp = np.empty(steps)
    opt[:, 0] = unwritten
    for m in range(1, slots + 1):
        for l in range(steps):  # noqa: E741 - the papers' name
            optp[l] = written[l]
            for j in range(1, l):
                optp[l] = min(optp[l], j * forward + opt[l - j, m - 1] + read + optp[j - 1])
            opt[l, m] = min(unwritten[l], write + optp[l])


@allocating_kernel
def _fill_disk(
    opt_0: Costs, write: float, read: float, forward: float, opt_1d: Costs, opt_inf: Costs
) -> None:
    for l in range(len(opt_0)):  # noqa: E741 - the papers' name
        opt_1d[l] = opt_inf[l] = opt_0[l]
        for j in range(1, l):
            again = read + opt_1d[j - 1]
            opt_1d[l] = min(opt_1d[l], j * forward + opt_0[l - j] + again)
            opt_inf[l] = min(opt_inf[l], write + j * forward + opt_inf[l - j] + again)
