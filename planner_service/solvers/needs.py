"""A chain as the solvers see it: per stage, what each action needs and what it leaves behind.

Every legal schedule tapes and reverses every stage exactly once, so those costs are a constant of the
chain. What a solver decides is which stages are advanced, and how often: the *recomputation cost*
(first-time advances included).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner_service.chain import Chain

Bytes = NDArray[np.int64]
Costs = NDArray[np.float64]
Flag = NDArray[np.uint8]

MINIMUM_BODY = 3
"""Fewer equal neighbours than this are not worth the bookkeeping of a body."""


class StageNeeds(NamedTuple):
    """Stage i with its neighbourhood: equal needs mean interchangeable stages (bytes and costs)."""

    advance_cost: float
    """f_i"""
    state_bytes: int
    """a_i: taken from the free bytes while x_i is a checkpoint."""
    tape_bytes: int
    """e_i: taken from the free bytes while stage i is taped."""
    gradient_bytes: int
    """g_i: live while an interval that ends in stage i is reversed."""
    tape_need_bytes: int
    """e_i + taped workspace; the gradient of the interval's end comes on top."""
    reverse_need_bytes: int
    """g_i + e_i + g_{i-1} + backward workspace."""
    first_advance_bytes: int
    """a_i + forward workspace, when x_{i-1} is the interval's input; the gradient comes on top."""
    next_advance_bytes: int
    """a_{i-1} + a_i + forward workspace, when x_{i-1} was computed on the way."""


STATE, TAPE_BYTES, GRADIENT, TAPE_NEED, REVERSE_NEED, FIRST_ADVANCE, NEXT_ADVANCE = range(7)
"""Columns of `ChainNeeds.table`: the byte fields of StageNeeds in order."""


@dataclass(frozen=True, slots=True)
class NeedsRun:
    """`count` consecutive interchangeable stages."""

    count: int
    needs: StageNeeds


@dataclass(frozen=True)
class ChainNeeds:
    """The chain's stages as runs of interchangeable ones, with the longest run, the *body*, marked."""

    runs: tuple[NeedsRun, ...]
    body_run: int
    """Index of the longest run."""

    @cached_property
    def length(self) -> int:
        """L, the number of stages."""
        return sum(run.count for run in self.runs)

    @cached_property
    def body(self) -> tuple[int, int]:
        """First and last stage of the body, counted from 0."""
        first = sum(run.count for run in self.runs[: self.body_run])
        return first, first + self.runs[self.body_run].count - 1

    @cached_property
    def _last_of_run(self) -> list[int]:
        return [last - 1 for last in accumulate(run.count for run in self.runs)]

    def stage(self, index: int) -> StageNeeds:
        """Stage `index`, counted from 0."""
        return self.runs[bisect_left(self._last_of_run, index)].needs

    @cached_property
    def kind(self) -> NDArray[np.int64]:
        """Shape (L,): the index in `runs` of each stage."""
        return np.repeat(np.arange(len(self.runs)), [run.count for run in self.runs])

    @cached_property
    def store_all_bytes(self) -> int:
        """Free bytes that taping every stage takes."""
        end_gradient = self.runs[-1].needs.gradient_bytes
        taped = need = 0
        for run in self.runs:
            count, stage = run.count, run.needs
            # Within a run the last stage is the one that sees the most tapes.
            taped += (count - 1) * stage.tape_bytes
            need = max(need, taped + end_gradient + stage.tape_need_bytes, taped + stage.reverse_need_bytes)
            taped += stage.tape_bytes
        return need

    @cached_property
    def table(self) -> Bytes:
        """The byte fields of every run, shape (runs, 7), in bytes."""
        return np.array([run.needs[1:] for run in self.runs], dtype=np.int64)

    @cached_property
    def advance_cost(self) -> Costs:
        """Costs of an advance per run, shape (runs,)."""
        return np.array([run.needs.advance_cost for run in self.runs], dtype=np.float64)

    @cached_property
    def advance_cost_before(self) -> Costs:
        """Shape (L + 1,): cost of advancing the first k stages."""
        return np.concatenate(([0.0], np.cumsum(self.advance_cost[self.kind])))


def chain_needs(chain: Chain) -> ChainNeeds:
    """What the solvers need to know of `chain`. O(number of runs)."""
    runs: list[NeedsRun] = []
    for count, needs in _stage_needs(chain):
        if runs and runs[-1].needs == needs:
            runs[-1] = NeedsRun(runs[-1].count + count, needs)
        else:
            runs.append(NeedsRun(count, needs))
    body = max(range(len(runs)), key=lambda index: runs[index].count)
    if runs[body].count < MINIMUM_BODY:
        body = len(runs) - 1
    return ChainNeeds(tuple(runs), body)


def _stage_needs(chain: Chain) -> Iterator[tuple[int, StageNeeds]]:
    """Runs of equal stages, cut where a neighbour's bytes differ."""
    first = 1
    # x_0 is no checkpoint and no stage is advanced on the way to it: pretend that it is like x_1.
    state_before = chain.stage(1).state_bytes
    gradient_before = chain.gradient_bytes(0)
    for run in chain.runs:
        last = first + run.count - 1
        cuts = sorted({first, min(first + 1, last), last})
        for start, end in zip(cuts, [*(cut - 1 for cut in cuts[1:]), last], strict=True):
            gradient = chain.gradient_bytes(start)
            stage = run.stage
            tape = stage.tape_bytes
            yield (
                end - start + 1,
                StageNeeds(
                    advance_cost=stage.forward_cost,
                    state_bytes=stage.state_bytes,
                    tape_bytes=tape,
                    gradient_bytes=gradient,
                    tape_need_bytes=tape + stage.taped_forward_workspace_bytes,
                    reverse_need_bytes=gradient
                    + stage.tape_bytes
                    + gradient_before
                    + stage.backward_workspace_bytes,
                    first_advance_bytes=stage.state_bytes + stage.forward_workspace_bytes,
                    next_advance_bytes=state_before + stage.state_bytes + stage.forward_workspace_bytes,
                ),
            )
            state_before, gradient_before = stage.state_bytes, gradient
        first = last + 1
