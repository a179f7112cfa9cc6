"""A frontier in well under a millisecond: for every point a policy exists that costs no more.

For schedulers, who ask about thousands of jobs. `frontier` plans; this counts. Every stage counts as
the greediest of all (a: state, e: tape), so whatever fits these stages fits the chain. With m bytes free,
let N_r(m) be the most stages that can be reversed when none is advanced more than r times:

    N_0(m) = (m - overhead) // e                     tape them one after the other
    N_r(m) = N_{r-1}(m) + N_r(m - a)                 store a state after the first N_{r-1}(m) of them

(the mixed recurrence of Gruslys, Munos, Danihelka, Lanctot, Graves 2016, arXiv:1606.03401, section 3.4,
read by its length instead of by its cost; without tapes it is the binomial of Griewank and Walther 2000).
The stages advanced on the way, and those that were advanced exactly r times, follow suit:

    A_r(m) = A_{r-1}(m) + N_{r-1}(m) + A_r(m - a)    E_r(m) = E_{r-1}(m) + E_r(m - a)

A chain of L <= N_r(m) stages leaves out N_r(m) - L of these, each advanced up to r times. With one sweep
the count is exact: states are stored until the rest can be reversed, and the last tapes are not advanced.
Two sweeps may store few states in the inner one, which is much better where one sweep is nearly enough.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np

from planner_service.chain import Chain
from planner_service.chain.stage import MAXIMUM_BYTES
from planner_service.solvers import sketch_kernels as kernels
from planner_service.solvers.needs import Bytes, Costs

MOST_SWEEPS = 32
TAPED_SHARES: Costs = np.union1d(np.geomspace(1e-4, 1, 64), np.linspace(0, 1, 101))
"""Shares of the chain whose tapes are held at once, at which one sweep is counted: some spread
geometrically, some evenly."""
MOST_LEVELS = 5_000
MOST_RUNS = 3
"""Equal stages, and a first and a last one that differ: more variety is too much for one greediest stage."""


class Sketch(NamedTuple):
    """Budgets and makespans that some policy has; neither sorted nor all worth having."""

    budget_bytes: Bytes
    makespan: Costs
    """In the chain's cost unit."""


def frontier_sketch(chain: Chain) -> Sketch | None:
    """Points that are never too good: a persistent policy within each budget costs at most that makespan.

    None for a chain of too many different stages, or of sizes that leave 64 bits. O(levels * MOST_SWEEPS)
    with about sqrt(2 L e / a) levels. The least budget is not among them.
    """
    if len(chain.runs) > MOST_RUNS:
        return None
    uniform = _uniform(chain)
    if uniform.tape_overhead + uniform.length * (uniform.tape + uniform.state) > MAXIMUM_BYTES:
        return None
    size = len(TAPED_SHARES) + _level_count(uniform)
    free, advances = np.empty(size, dtype=np.int64), np.empty(size)
    kernels.fill_sketch(uniform, MOST_SWEEPS, TAPED_SHARES, free, advances, np.empty((3, size)))
    possible = np.isfinite(advances)
    cost = max(run.stage.forward_cost for run in chain.runs)
    held = chain.static_bytes + chain.input_bytes
    return Sketch(held + free[possible], chain.store_all_makespan + cost * advances[possible])


def quadratic_makespan(chain: Chain) -> float:
    """What the leanest policy costs at most: every stage advanced to from the input, again and again."""
    cost = max(run.stage.forward_cost for run in chain.runs)
    return chain.store_all_makespan + cost * chain.length * (chain.length - 1) / 2


def _uniform(chain: Chain) -> kernels.Uniform:
    stages = [run.stage for run in chain.runs]
    gradient = max(
        chain.gradient_bytes(0), chain.loss_gradient_bytes, *(stage.live_gradient_bytes for stage in stages)
    )
    state = max(stage.state_bytes for stage in stages)
    taping = max(stage.taped_forward_workspace_bytes for stage in stages)
    reversing = gradient + max(stage.backward_workspace_bytes for stage in stages)
    return kernels.Uniform(
        length=chain.length,
        state=max(1, state),
        tape=max(1, *(stage.tape_bytes for stage in stages)),
        tape_overhead=gradient + max(taping, reversing),
        advance_need=gradient + 2 * state + max(stage.forward_workspace_bytes for stage in stages),
    )


def _level_count(chain: kernels.Uniform) -> int:
    """Levels, state by state, from one tape up to where one sweep is enough."""
    return min(chain.length, MOST_LEVELS, int(sqrt(2 * chain.length * chain.tape / chain.state)) + 3) + 1
