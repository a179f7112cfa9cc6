"""What was found out about loops before, so that only the first call with new shapes pays for it.

Two calls are alike when the same function (`executor.likeness`) runs on the same modules (in the same mode,
with the same attributes and the same parameters frozen), with states and inputs of the same shapes, strides
and need of gradients, under the same autocast. What is known is forgotten with the module or function that it
is about.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from executor.dry_run import Needs
from executor.likeness import attributes_likeness, code_of, likeness, tensor_likeness
from executor.loop import Loop
from executor.offload.host import HostMemory
from executor.plan import ExecutionPlan
from executor.probe import ProbeReport, probe_loop
from executor.replay import AutocastState
from executor.trace import paused

MOST_LOOPS = 64
"""Loops of one module, or of one function's lines, that are remembered; those used longest ago go first."""


class Known:
    """What is known about one loop."""

    def __init__(self) -> None:
        self._needs: Needs | None = None
        self._report: ProbeReport | None = None
        self.plans: dict[Hashable, ExecutionPlan] = {}
        """By budget, planner and host budget."""
        self._hosts: dict[int, HostMemory] = {}

    def needs(self, loop: Loop) -> Needs:
        """What must be replayed, looked into once."""
        if self._needs is None:
            self._needs = loop.needs() if self._report is None else self._report.needs
        return self._needs

    def host(self, loop: Loop, budget_bytes: int) -> HostMemory:
        """Host memory beside the loop, its two directions measured once."""
        if budget_bytes not in self._hosts:
            with paused():
                self._hosts[budget_bytes] = HostMemory.beside(loop, self.needs(loop), budget_bytes)
        return self._hosts[budget_bytes]

    def report(self, loop: Loop, budget_bytes: int, extra_candidates: Iterable[int] = ()) -> ProbeReport:
        """The probe of every usual segment length that can be rehearsed within the budget, and of the
        extra ones. What was measured before is not measured again.
        """
        report = probe_loop(loop, budget_bytes=budget_bytes, extra=extra_candidates, already=self._report)
        if self._report is None:
            self._report = report
        measured = {segment.segment_steps: segment for segment in self._report.segments}
        measured |= {segment.segment_steps: segment for segment in report.segments}
        self._report = replace(report, segments=tuple(measured[steps] for steps in sorted(measured)))
        return report


_known: WeakKeyDictionary[Any, dict[Hashable, Known]] = WeakKeyDictionary()


def known(loop: Loop) -> Known:
    """What is known about loops like this one. A function that cannot be remembered is always new."""
    try:
        about = _known.setdefault(_anchor(loop), {})
        signature = _signature(loop)
        found = about.pop(signature, None) or Known()
    except TypeError:  # neither hashable nor weakly referable
        return Known()
    about[signature] = found  # the latest is the last
    while len(about) > MOST_LOOPS:
        del about[next(iter(about))]
    return found


def forget(loop: Loop) -> None:
    """The next call like this one is looked into anew: what was found out does not hold any more."""
    with suppress(TypeError):
        _known.get(_anchor(loop), {}).pop(_signature(loop), None)


def _anchor(loop: Loop) -> Any:
    return loop.modules[0] if loop.modules else code_of(loop.function)


def _signature(loop: Loop) -> Hashable:
    return (
        likeness(loop.function),
        loop.is_segment,
        loop.reduce,
        loop.final_state,
        loop.outputs_transposed,
        tuple(tensor_likeness(leaf) for leaf in (*loop.initial, *loop.inputs.leaves, *loop.captured)),
        loop.inputs.length,
        tuple(_modes(loop)),
        AutocastState.now(),
    )


def _modes(loop: Loop) -> Iterator[Hashable]:
    for module in loop.modules:
        for part in module.modules():
            yield id(part), tuple(attributes_likeness(part))
            for parameter in part._parameters.values():
                if parameter is not None:
                    yield parameter.requires_grad, parameter.dtype, parameter.device, parameter.shape
