"""What was found out about loops before, so that only the first call with new shapes pays for it.

Two calls are alike when the same function runs on the same modules (in the same mode, with the same
parameters frozen), with states and inputs of the same shapes and the same need of gradients, under the
same autocast. What is known is forgotten with the module or function it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from executor.dry_run import Needs
from executor.loop import Loop
from executor.offload.host import HostMemory
from executor.plan import ExecutionPlan
from executor.probe import ProbeReport, probe_loop
from executor.replay import AutocastState
from executor.trace import paused
from executor.trees import leaf_description

DEEPEST_CLOSURE = 4
"""Functions in closures of closures count by their lines down to here, by identity below."""


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
    anchor = loop.modules[0] if loop.modules else _code_of(loop.function)
    try:
        return _known.setdefault(anchor, {}).setdefault(_signature(loop), Known())
    except TypeError:  # neither hashable nor weakly referable
        return Known()


def _signature(loop: Loop) -> Hashable:
    return (
        _identity(loop.function),
        loop.is_segment,
        loop.reduce,
        loop.final_state,
        tuple(_description(leaf) for leaf in loop.initial),
        tuple(_description(leaf) for leaf in (*loop.inputs.leaves, *loop.captured)),
        loop.inputs.length,
        tuple(_modes(loop)),
        AutocastState.now(),
    )


def _description(leaf: Any) -> Hashable:
    return (*leaf_description(leaf), isinstance(leaf, Tensor) and leaf.requires_grad)


def _modes(loop: Loop) -> Iterator[Hashable]:
    for module in loop.modules:
        for part in module.modules():
            yield id(part), part.training
            for parameter in part._parameters.values():
                if parameter is not None:
                    yield parameter.requires_grad, parameter.dtype, parameter.device, parameter.shape


def _code_of(function: Callable[..., Any]) -> Any:
    """What stays the same when a function is defined anew by the same lines."""
    plain = getattr(function, "__func__", function)
    return getattr(plain, "__code__", plain)


def _identity(value: Any, depth: int = 0) -> Hashable:
    """What makes a function's work what it is: its lines, and the values that they see. A tensor counts
    by its shape, so that a new batch in a closure is nothing new; numbers and texts count by value,
    other objects by identity. Globals and attributes are not looked at.
    """
    if isinstance(value, Tensor):
        return _description(value)
    if value is None or isinstance(value, int | float | str):
        return (type(value), value)
    if isinstance(value, tuple):
        return tuple(_identity(part, depth + 1) for part in value)
    if depth > DEEPEST_CLOSURE or not hasattr(_code_of(value), "co_code"):
        return (type(value), id(value))
    plain = getattr(value, "__func__", value)
    seen = (*(plain.__defaults__ or ()), *(plain.__kwdefaults__ or {}).values(), *_closure(plain))
    owner = getattr(value, "__self__", None)
    others = tuple(_identity(part, depth + 1) for part in seen if part is not value)
    return (plain.__code__, id(owner), others)


def _closure(function: Callable[..., Any]) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is bound later
            continue
