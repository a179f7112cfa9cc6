"""A chain: the stages to run forward and reverse, run-length encoded.

A million equal stages are one `StageRun`, so that every total below costs O(number of runs).
Stages are numbered 1..length, states 0..length; x_0 is the chain's input.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from planner_service.chain.errors import InvalidChain
from planner_service.chain.stage import Stage, check_bytes


@dataclass(frozen=True, slots=True)
class StageRun:
    """`count` consecutive equal stages."""

    count: int
    stage: Stage


class RunPart(NamedTuple):
    """The stages first..last (inclusive), all equal to `stage`."""

    first: int
    last: int
    stage: Stage


@dataclass(frozen=True)
class Chain:
    """Stages 1..L with the bytes around them (docs/memory_model.md).

    Raises InvalidChain when there is no stage, a count is not positive or a byte count is not a
    whole number in range.
    """

    runs: tuple[StageRun, ...]
    input_bytes: int = 0
    """a_0: the state x_0, held by the caller from start to end, in bytes."""
    static_bytes: int = 0
    """What is live throughout besides states, tapes and gradients, in bytes."""
    loss_gradient_bytes: int = 0
    """g_L: the gradient of x_L that comes from outside, live from the start until stage L is
    reversed, in bytes. 0 when the loss is inside the last stage."""
    input_gradient_bytes: int | None = None
    """g_0: the gradient of x_0, in bytes. None means a_0."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise InvalidChain("a chain needs at least one stage", field="model.stages")
        for run in self.runs:
            if type(run.count) is not int or run.count < 1:
                raise InvalidChain(
                    f"count={run.count!r} must be a positive whole number", field="model.stages"
                )
        check_bytes("input_bytes", self.input_bytes)
        check_bytes("static_bytes", self.static_bytes)
        check_bytes("loss_gradient_bytes", self.loss_gradient_bytes)
        if self.input_gradient_bytes is not None:
            check_bytes("input_gradient_bytes", self.input_gradient_bytes)

    @classmethod
    def of(
        cls,
        stages: Iterable[Stage],
        *,
        input_bytes: int = 0,
        static_bytes: int = 0,
        loss_gradient_bytes: int = 0,
        input_gradient_bytes: int | None = None,
    ) -> Chain:
        """The chain of `stages` in order, neighbours that are equal merged into runs."""
        return cls(
            merge_runs(StageRun(1, stage) for stage in stages),
            input_bytes=input_bytes,
            static_bytes=static_bytes,
            loss_gradient_bytes=loss_gradient_bytes,
            input_gradient_bytes=input_gradient_bytes,
        )

    @cached_property
    def length(self) -> int:
        """L, the number of stages."""
        return sum(run.count for run in self.runs)

    @cached_property
    def _last_of_run(self) -> tuple[int, ...]:
        return tuple(accumulate(run.count for run in self.runs))

    def stage(self, index: int) -> Stage:
        """Stage `index` (1..L). Raises IndexError outside."""
        if not 1 <= index <= self.length:
            raise IndexError(f"stage {index} of a chain of {self.length}")
        return self.runs[bisect_right(self._last_of_run, index - 1)].stage

    def parts(self, first: int, last: int) -> Iterator[RunPart]:
        """The stages first..last as maximal pieces of equal stages, in order; O(pieces)."""
        run = bisect_right(self._last_of_run, first - 1)
        while first <= last:
            end = min(last, self._last_of_run[run])
            yield RunPart(first, end, self.runs[run].stage)
            first, run = end + 1, run + 1

    def stages(self) -> Iterator[Stage]:
        """Every stage in order."""
        for run in self.runs:
            for _ in range(run.count):
                yield run.stage

    def state_bytes(self, index: int) -> int:
        """a_i of x_i for i in 0..L, in bytes."""
        return self.input_bytes if index == 0 else self.stage(index).state_bytes

    def gradient_bytes(self, index: int) -> int:
        """g_i of x_i for i in 0..L, defaults resolved, in bytes."""
        if index == self.length:
            return self.loss_gradient_bytes
        if index == 0:
            given = self.input_gradient_bytes
            return self.input_bytes if given is None else given
        return self.stage(index).live_gradient_bytes

    @cached_property
    def is_reversible(self) -> bool:
        """Whether every stage can be undone."""
        return all(run.stage.reversal is not None for run in self.runs)

    @cached_property
    def has_reversals(self) -> bool:
        """Whether some stage can be undone: some schedule then undoes it."""
        return any(run.stage.reversal is not None for run in self.runs)

    @cached_property
    def store_all_makespan(self) -> float:
        """Cost of taping and reversing every stage once: what full BPTT costs."""
        return sum(run.count * (run.stage.taped_forward_cost + run.stage.backward_cost) for run in self.runs)


def merge_runs(runs: Iterable[StageRun]) -> tuple[StageRun, ...]:
    """Neighbouring runs of equal stages joined into one."""
    merged: list[StageRun] = []
    for run in runs:
        if merged and merged[-1].stage == run.stage:
            merged[-1] = StageRun(merged[-1].count + run.count, run.stage)
        else:
            merged.append(run)
    return tuple(merged)


def without_reversals(chain: Chain) -> Chain:
    """The same chain, none of whose stages can be undone."""
    runs = (StageRun(run.count, replace(run.stage, reversal=None)) for run in chain.runs)
    return replace(chain, runs=merge_runs(runs))
