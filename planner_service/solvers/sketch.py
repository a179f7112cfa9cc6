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

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple, Self

import numpy as np

from planner_service.chain import Chain
from planner_service.chain.stage import MAXIMUM_BYTES
from planner_service.solvers import sketch_kernels as kernels
from planner_service.solvers.needs import Bytes, Costs

MOST_SWEEPS = 16
TAPED_SHARES: Costs = np.union1d(np.geomspace(1e-4, 1, 41), np.linspace(0, 1, 81))
"""Shares of the chain whose tapes are held at once, at which one sweep is counted: some spread
geometrically, some evenly."""
MOST_LEVELS = 5_000
MOST_RUNS = 3
"""Equal stages, and a first and a last one that differ: more variety is too much for one greediest stage."""


class Outline(NamedTuple):
    """A chain of equal stages, or one that needs no more than that; sizes in bytes."""

    length: int
    state_bytes: int
    tape_bytes: int
    tape_overhead_bytes: int
    """Needed besides the tapes themselves while a stage is taped or reversed: gradients, workspace."""
    advance_need_bytes: int
    """Needed free to advance at all."""
    held_bytes: int
    """Throughout: static bytes and the input."""
    advance_cost: float
    store_all_makespan: float

    @classmethod
    def of(cls, chain: Chain) -> Self | None:
        """The outline of `chain`, every stage as the greediest; None where its stages differ too much."""
        if len(chain.runs) > MOST_RUNS:
            return None
        stages = [run.stage for run in chain.runs]
        return cls.of_stages(
            length=chain.length,
            state_bytes=max(stage.state_bytes for stage in stages),
            tape_bytes=max(stage.tape_bytes for stage in stages),
            gradient_bytes=max(
                chain.gradient_bytes(0),
                chain.loss_gradient_bytes,
                *(stage.live_gradient_bytes for stage in stages),
            ),
            forward_workspace_bytes=max(stage.forward_workspace_bytes for stage in stages),
            taped_workspace_bytes=max(stage.taped_forward_workspace_bytes for stage in stages),
            backward_workspace_bytes=max(stage.backward_workspace_bytes for stage in stages),
            held_bytes=chain.static_bytes + chain.input_bytes,
            advance_cost=max(stage.forward_cost for stage in stages),
            store_all_makespan=chain.store_all_makespan,
        )

    @classmethod
    def of_stages(
        cls,
        *,
        length: int,
        state_bytes: int,
        tape_bytes: int,
        gradient_bytes: int,
        forward_workspace_bytes: int,
        taped_workspace_bytes: int,
        backward_workspace_bytes: int,
        held_bytes: int,
        advance_cost: float,
        store_all_makespan: float,
    ) -> Self | None:
        """The outline of `length` such stages; None where sizes leave 64 bits."""
        overhead = gradient_bytes + max(taped_workspace_bytes, gradient_bytes + backward_workspace_bytes)
        if held_bytes + overhead + length * (tape_bytes + state_bytes) > MAXIMUM_BYTES:
            return None
        return cls(
            length=length,
            state_bytes=max(1, state_bytes),
            tape_bytes=max(1, tape_bytes),
            tape_overhead_bytes=overhead,
            advance_need_bytes=gradient_bytes + 2 * state_bytes + forward_workspace_bytes,
            held_bytes=held_bytes,
            advance_cost=advance_cost,
            store_all_makespan=store_all_makespan,
        )

    @property
    def quadratic_makespan(self) -> float:
        """What the leanest policy costs at most: every stage advanced to from the input, each time anew."""
        return self.store_all_makespan + self.advance_cost * self.length * (self.length - 1) / 2

    @property
    def level_count(self) -> int:
        """Levels, state by state, from one tape up to where one sweep is enough."""
        enough = int(sqrt(2 * self.length * self.tape_bytes / self.state_bytes)) + 3
        return min(self.length, MOST_LEVELS, enough) + 1


class Sketch(NamedTuple):
    """Budgets and makespans that some policy has; neither sorted nor all worth having."""

    budget_bytes: Bytes
    makespan: Costs
    """In the chains' cost unit."""


def frontier_sketch(outlines: Sequence[Outline]) -> Sketch:
    """Points that are never too good: a persistent policy of one of the chains within each budget costs at
    most that makespan.

    O(levels * MOST_SWEEPS) per chain, with about sqrt(2 L e / a) levels. The least budget is not among them.
    """
    counts = np.array([len(TAPED_SHARES) + outline.level_count for outline in outlines])
    table = np.array([outline[:6] for outline in outlines], dtype=np.int64)
    costs = np.array([outline[6:] for outline in outlines], dtype=np.float64)
    budgets = np.empty(counts.sum(), dtype=np.int64)
    makespans, workspace = np.empty(len(budgets)), np.empty((3, counts.max()))
    kernels.fill_sketches(table, costs, counts, MOST_SWEEPS, TAPED_SHARES, budgets, makespans, workspace)
    possible = np.isfinite(makespans)
    return Sketch(budgets[possible], makespans[possible])
