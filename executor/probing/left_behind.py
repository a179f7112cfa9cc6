"""What steps leave behind besides states and outputs: tensors in attributes, such as the attention weights
that were computed last, or weights that a hook computed.

What the last step left is freed where the next one puts its own in its place. So a tape that is measured
between two others seems smaller than it is, by what the one before left; a run holds what the last one left
beside everything else.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from executor.engine import Observer
from executor.errors import GrowingMemory
from executor.memory.sizes import storage_bytes
from executor.probing.action_costs import RunBytes, bytes_of_actions
from executor.probing.stage_costs import StageBytes
from executor.surroundings.buffers import Buffers
from planner_service.chain import Stage

MOST_GROWTH_BYTES = 64
"""Of a step: a few numbers in tensors, which are less than autograd's own records of it."""


class Runs(Protocol):
    """A rehearsal, of which this is a part."""

    def run(self, observer: Observer | None) -> None:
        """Run the actions; `observer` is called as by the engine."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All that the steps see."""

    @property
    def trace_bytes(self) -> int:
        """Bytes of what modules carry over to the next iteration, which is counted elsewhere."""

    @property
    def executed_steps(self) -> int:
        """How many steps `run` runs, those that run again included."""


def living_tensors() -> list[Tensor]:
    """All that Python holds, with their graphs. While this list is kept, none of them is freed."""
    return [each for each in gc.get_objects() if issubclass(type(each), Tensor)]


def bytes_of_run(
    rehearsal: Runs, device: torch.device, *, times: int = 1, with_cycles: bool = False
) -> RunBytes:
    """The bytes of a rehearsal, run so many times. Buffers that steps replaced are not left behind; graphs in
    reference cycles are, unless they are collected `with_cycles`.
    """
    buffers = Buffers(rehearsal.modules)
    before = buffers.current()
    held = living_tensors() if device.type == "cuda" else []  # on the CPU what is older counts nothing
    found = bytes_of_actions(partial(_run, rehearsal, times, with_cycles), device)
    del held
    replaced_bytes = storage_bytes(buffers.current(), besides=before)
    return found._replace(left_bytes=found.left_bytes - replaced_bytes)


def _run(rehearsal: Runs, times: int, with_cycles: bool, observer: Observer) -> None:
    for _ in range(times):
        rehearsal.run(observer)
    if with_cycles:
        gc.collect()


def left_behind(rehearsal: Runs, left_bytes: int, device: torch.device) -> int:
    """Bytes that a run leaves behind in the place of what the run before left, given what one was found to
    leave. Traces count elsewhere.

    Raises GrowingMemory where each run leaves more beside what the others left.
    """
    if left_bytes <= rehearsal.trace_bytes:
        return 0
    steps = rehearsal.executed_steps
    growth = bytes_of_run(rehearsal, device, times=2).left_bytes - left_bytes
    if growth > MOST_GROWTH_BYTES * steps:
        one, two = (bytes_of_run(rehearsal, device, times=n, with_cycles=True).left_bytes for n in (1, 2))
        if two - one > MOST_GROWTH_BYTES * steps:
            raise GrowingMemory((two - one) // steps)
    return max(0, left_bytes - max(0, growth) - rehearsal.trace_bytes)


def kept_bytes(left_bytes: Iterable[int], left_by_the_last: int, steps: int, *, rehearsed_steps: int) -> int:
    """Bytes that `steps` keep each for itself, such as an entry of a cache: they keep no more when they run
    again, so that `left_behind` does not find them. `left_bytes` is what was left by some of them at a time,
    each time with what any step leaves in the place of the one before; those rehearsed had kept theirs.
    """
    kept = sum(max(0, each - left_by_the_last) for each in left_bytes)
    if kept <= MOST_GROWTH_BYTES * steps:
        return 0
    return -(-kept * steps // max(1, steps - rehearsed_steps))


def beside_what_is_left(sized: StageBytes, left_bytes: int) -> StageBytes:
    """`sized`, its tapes with what the step before left, which was freed while they were measured."""
    if not left_bytes:
        return sized

    def with_it(stage: Stage) -> Stage:
        return replace(stage, tape_bytes=stage.tape_bytes + left_bytes)

    return replace(
        sized,
        stages=tuple(with_it(stage) for stage in sized.stages),
        first_pass_last=with_it(sized.first_pass_last),
    )
