"""What a plan counts from start to end, line by line."""

from __future__ import annotations

from dataclasses import dataclass

from executor.loop import Loop
from executor.memory.sizes import held_bytes, rounded_bytes
from executor.probing.rehearsal import Rehearsal
from executor.stages.parameters import Parameters
from executor.trees import is_continuous

_LOSS_SCALARS = 8
"""The caller's loss and its gradient, float32: a few scalars that a measurement around the whole sees."""


@dataclass(frozen=True)
class StaticLine:
    """Bytes that the plan counts from start to end."""

    name: str
    bytes: int
    formula: str
    exactness: str = "exact"


def static_lines(loop: Loop, rehearsal: Rehearsal) -> tuple[StaticLine, ...]:
    """The lines of a loop, of whose shortest segments `rehearsal` is one."""
    outputs = loop.output_bytes(rehearsal.output_leaves)
    gradients = sum(held_bytes(parameter) for parameter in Parameters(loop.modules).real)
    captured = sum(held_bytes(tensor) for tensor in loop.captured)
    slack = 0 if rehearsal.lost is None else rehearsal.lost.slack_bytes
    return (
        StaticLine("parameter gradients", gradients + captured, "one per parameter and captured tensor"),
        StaticLine("outputs", outputs, "stacked over the steps, or one reduced"),
        StaticLine("gradients of the outputs", _output_gradient_bytes(loop, rehearsal), "like the outputs"),
        StaticLine("gradients of the inputs", loop.inputs.gradient_bytes, "like the inputs that need one"),
        StaticLine("final state", rehearsal.final_state_bytes, "returned to the caller"),
        StaticLine("gradient of the final state", rehearsal.state_gradient_bytes, "like the final state"),
        StaticLine("archive's begun words and blocks", slack, "2 B a unit + 32 KiB a layer", "bound"),
        *_carried(rehearsal),
        StaticLine("loss", _LOSS_SCALARS * rounded_bytes(4, loop.device), "the caller's scalars", "bound"),
    )


def kept_by_steps(size_bytes: int) -> StaticLine:
    """What steps keep each for itself, and will not keep again in a later call."""
    return StaticLine("kept by steps", size_bytes, "entries of a cache, say, that are not there yet", "bound")


def _carried(rehearsal: Rehearsal) -> list[StaticLine]:
    """What modules keep for the next iteration, where they keep any."""
    carried = rehearsal.trace_bytes
    return (
        [StaticLine("error feedback", carried, "what is dropped, as large as the weights")] if carried else []
    )


def _output_gradient_bytes(loop: Loop, rehearsal: Rehearsal) -> int:
    return loop.output_bytes([leaf for leaf in rehearsal.output_leaves if is_continuous(leaf)])


def backward_only_bytes(loop: Loop, rehearsal: Rehearsal) -> int:
    """Gradients among the static lines that do not exist yet in the first pass, parameters' aside."""
    gradients = _output_gradient_bytes(loop, rehearsal) + rehearsal.state_gradient_bytes
    return gradients + loop.inputs.gradient_bytes
