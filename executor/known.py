"""What was found out about loops before, so that only the first call with new shapes pays for it.

Two calls are alike when the same function, seeing the same values (`executor.surroundings.seen`), runs on the
same modules (in the same mode, with the same attributes, buffers of the same sizes and the same parameters
frozen), with states and inputs of the same shapes, strides and need of gradients, under the same autocast and
settings of torch. What is known is forgotten with the module or function that it is about.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor

from executor.loop import Loop
from executor.memory.trace import paused
from executor.offload.host import HostMemory
from executor.plan import ExecutionPlan
from executor.probe import probe_loop
from executor.probe_report import ProbeReport, SegmentProbe
from executor.probe_tapes import beside_host_memory
from executor.rules.needs import Needs
from executor.stages.states import may_count
from executor.surroundings.ambience import Ambience
from executor.surroundings.autocast import AutocastState
from executor.surroundings.backends import Backends
from executor.surroundings.dispatch_modes import modes_now
from executor.surroundings.likeness import (
    PLAIN,
    Same,
    attributes_likeness,
    code_of,
    lasting,
    plain_likeness,
    tensor_likeness,
)
from executor.surroundings.look import SeenValue
from executor.surroundings.wiring import wiring_likeness

MOST_LOOPS = 64
"""Loops of one module, or of one function's lines, that are remembered; those used longest ago go first."""
_NUMBERS_OF_TENSORS = frozenset({"int", "item", "tolist"})
MOST_PLANS = 64
"""Plans of one loop that are remembered: a budget that follows the free memory is new at every call."""
MOVES_TOLD = 5
"""After so many calls that are new for the sake of a few values alone, a warning names these."""


class Known:
    """What is known about one loop."""

    def __init__(self) -> None:
        self._needs: Needs | None = None
        self._report: ProbeReport | None = None
        self.plans: dict[Hashable, ExecutionPlan] = {}
        """By budget, planner and host budget."""
        self._beginnings: dict[Hashable, Known] = {}
        self._hosts: dict[int, HostMemory] = {}
        self._beside: dict[int, dict[int, SegmentProbe]] = {}
        """By host budget and segment length: segments with what their tapes take in host memory."""
        self._largest_step_bytes = 0.0
        """The largest graph of a step in a call that outgrew its plan (`executor.rules.outgrowth`)."""

    def from_the_start_of(self, loop: Loop) -> Known:
        """What is known about those of these loops that begin at the same step as `loop`.

        A long sequence may be run in chunks whose state counts the steps, by a number in a tensor. Where
        steps are known to differ, or where their lines turn tensors into numbers, a chunk that begins later
        may do other work than the first: chunks are told apart by what their initial state counts.
        """
        differ = self._report is not None and self._report.steps_differ
        if not differ and _NUMBERS_OF_TENSORS.isdisjoint(loop.seen.names):
            return self
        counts = tuple(int(leaf) for leaf in loop.initial if isinstance(leaf, Tensor) and may_count(leaf))
        if not counts:
            return self
        if len(self._beginnings) >= MOST_LOOPS:
            self._beginnings.clear()
        return self._beginnings.setdefault(counts, Known())

    def remember_plan(self, key: Hashable, plan: ExecutionPlan) -> None:
        """The plan for `key`; the ones made longest ago are forgotten."""
        self.plans[key] = plan
        while len(self.plans) > MOST_PLANS:
            del self.plans[next(iter(self.plans))]

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

    def report_beside(
        self,
        loop: Loop,
        budget_bytes: int,
        extra_candidates: Iterable[int] = (),
        host_budget_bytes: int | None = None,
    ) -> ProbeReport:
        """Like `report`, with what tapes take in so much host memory, where there is any."""
        plain = self.report(loop, budget_bytes, extra_candidates)
        if host_budget_bytes is None:
            return plain
        before = self._beside.setdefault(host_budget_bytes, {})
        segments = tuple(before.get(segment.segment_steps, segment) for segment in plain.segments)
        report = replace(plain, segments=segments)
        report = beside_host_memory(loop, report, budget_bytes, host_budget_bytes)
        before |= {segment.segment_steps: segment for segment in report.segments if segment.host_tapes}
        return report

    def report(self, loop: Loop, budget_bytes: int, extra_candidates: Iterable[int] = ()) -> ProbeReport:
        """The probe of every usual segment length that can be rehearsed within the budget, and of the
        extra ones. What was measured before is not measured again.
        """
        report = probe_loop(loop, budget_bytes=budget_bytes, extra=extra_candidates, already=self._report)
        if self._report is None:
            self._report = report
        if report.steps_differ and not self._report.steps_differ:  # found out with longer segments only
            self._report = report
            self.plans.clear()
            self._beside.clear()
        measured = {segment.segment_steps: segment for segment in self._report.segments}
        measured |= {segment.segment_steps: segment for segment in report.segments}
        self._report = replace(report, segments=tuple(measured[steps] for steps in sorted(measured)))
        return report.at_least(self._largest_step_bytes)

    def outgrown(self, plan: ExecutionPlan, graph_bytes: int) -> None:
        """A segment had a graph of so many bytes, and the tapes beside it took more than `plan` counts: the
        next plan comes after a new look, and is made for segments that are as large as this one at least.
        """
        self._largest_step_bytes = max(self._largest_step_bytes, graph_bytes / plan.segment_steps)
        self._report = None
        self.plans.clear()
        self._beside.clear()


class _Signature(NamedTuple):
    """What calls alike have in common."""

    work: Hashable
    seen: tuple[SeenValue, ...]
    """What the step, and the function that makes its inputs, see."""
    modes: tuple[Hashable, ...]
    """Of every module: its attributes, hooks, and what its parameters and buffers are."""


class _Remembered:
    """What is known about the loops of one module, or of one function's lines; the latest is the last."""

    def __init__(self) -> None:
        self._loops: dict[_Signature, Known] = {}
        self._moves = 0
        self._is_full = False

    def at(self, signature: _Signature) -> Known:
        """What is known about calls with that signature."""
        found = self._loops.pop(signature, None)
        if found is None:
            self._tell_of_moving(signature)
            found = Known()
        self._loops[signature] = found
        while len(self._loops) > MOST_LOOPS:
            del self._loops[next(iter(self._loops))]
            self._tell_of_forgetting()
        return found

    def forget(self, signature: _Signature) -> None:
        """Nothing is known about such calls any more."""
        self._loops.pop(signature, None)

    def _tell_of_moving(self, signature: _Signature) -> None:
        """A number that counts up makes every call a new loop: after some of them, say which."""
        previous = next(reversed(self._loops), None)
        names = [] if previous is None else _moved(previous, signature)
        self._moves = self._moves + 1 if names else 0
        if self._moves == MOVES_TOLD:
            warnings.warn(
                f"this loop was probed anew {MOVES_TOLD} times because {' and '.join(names)} changed: if a "
                "step needs the same bytes whatever that is, name it with an underscore where it is an "
                "attribute, or keep it in a list, a tensor or a buffer",
                stacklevel=2,
            )

    def _tell_of_forgetting(self) -> None:
        """Sequences of very many lengths are probed again and again: say so once."""
        if not self._is_full and self._moves < MOVES_TOLD:
            warnings.warn(
                f"more than {MOST_LOOPS} lengths and shapes of one loop were probed: those used longest ago "
                "are forgotten and will be probed again, which takes far longer than a call; pad sequences "
                "to a few lengths",
                stacklevel=2,
            )
        self._is_full = True


def _moved(previous: _Signature, signature: _Signature) -> list[str]:
    """The attributes of modules, and what the step sees, in which alone two signatures differ."""
    if previous.work != signature.work or len(previous.modes) != len(signature.modes):
        return []
    if [each.name for each in previous.seen] != [each.name for each in signature.seen]:
        return []
    names = {f"{one.name}" for one, other in zip(previous.seen, signature.seen, strict=True) if one != other}
    for one, other in zip(previous.modes, signature.modes, strict=True):
        if one != other:
            if not (isinstance(one, _Attributes) and isinstance(other, _Attributes)) or one.of != other.of:
                return []
            names |= {f"{name} of its modules" for name, _ in set(one.values) ^ set(other.values)}
    return sorted(names)


class _Attributes(NamedTuple):
    """Plain public attributes of a module."""

    of: Same
    values: tuple[tuple[str, Hashable], ...]


_known: WeakKeyDictionary[Any, _Remembered] = WeakKeyDictionary()
_lock = threading.Lock()


def known(loop: Loop) -> Known:
    """What is known about loops like this one."""
    anchor, signature = _anchor(loop), _signature(loop)
    with _lock:
        return _known.setdefault(anchor, _Remembered()).at(signature).from_the_start_of(loop)


def forget(loop: Loop) -> None:
    """The next call like this one is looked into anew: what was found out does not hold any more."""
    anchor, signature = _anchor(loop), _signature(loop)
    with _lock:
        _known.setdefault(anchor, _Remembered()).forget(signature)


def _anchor(loop: Loop) -> Any:
    return lasting(loop.modules[0]) if loop.modules else code_of(loop.function)


def _signature(loop: Loop) -> _Signature:
    work = (
        loop.is_segment,
        loop.reduce,
        loop.final_state,
        loop.outputs_transposed,
        tuple(tensor_likeness(leaf) for leaf in (*loop.initial, *loop.inputs.leaves, *loop.captured)),
        loop.inputs.length,
        loop.told_apart_by,
        AutocastState.now(),
        Backends.now(),
        Ambience.now().kinds,
        tuple(map(type, modes_now())),
    )
    return _Signature(work, (*loop.seen.values, *_plain_leaves(loop)), tuple(_modes(loop)))


def _plain_leaves(loop: Loop) -> Iterator[SeenValue]:
    """Numbers and words in the state and the inputs: steps may do more the larger they are."""
    for where, leaves in (("state", loop.initial), ("inputs", loop.inputs.leaves)):
        for index, leaf in enumerate(leaves):
            if type(leaf) in PLAIN:
                yield SeenValue(f"leaf {index} of the {where}", plain_likeness(leaf))


def _modes(loop: Loop) -> Iterator[Hashable]:
    for module in loop.seen.modules:
        for part in module.modules():
            yield _Attributes(Same(lasting(part)), tuple(attributes_likeness(part)))
            yield wiring_likeness(part)
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None:
                    yield tensor_likeness(tensor)
