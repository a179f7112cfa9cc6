"""Functions of the caller's whose backward pass runs modules again and differentiates that run: the adjoint
method of neural ODEs, checkpoints of one's own, iterations to a fixed point.

What such a function saved of a module's parameters must be what its backward pass finds in the module: the
gradient of any other leaf is missing, which many of them take for zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from executor.rules.captures import are_numbered_by_threads
from executor.rules.graph import Walk, makers
from executor.surroundings.reads import is_library
from executor.surroundings.seen import Seen

_DIFFERENTIATE = frozenset({"enable_grad", "set_grad_enabled"})
"""Lines of a backward pass, where gradients are off, differentiate nothing without one of these."""


def differentiates_a_second_run(roots: Iterable[Any], since: int) -> bool:
    """Whether the graph above `roots`, made after the sequence number `since`, has such a function in it."""
    roots = list(roots)
    least = 0 if are_numbered_by_threads(roots) else since
    walk = Walk(makers(roots))
    for node in walk:
        if node._sequence_nr() < least:
            continue
        if _may_differentiate(node):
            return True
        walk.go_on(node)
    return False


def _may_differentiate(node: Any) -> bool:
    """By the lines of the function's backward pass, and of what was kept in its context."""
    function = getattr(type(node), "_forward_cls", None)
    if function is None or is_library(function.__module__):
        return False
    kept = list(getattr(node, "__dict__", {}).values())
    modules = [each for each in kept if isinstance(each, nn.Module)]
    called = [each for each in kept if callable(each) and not isinstance(each, nn.Module | Tensor)]
    return not _DIFFERENTIATE.isdisjoint(Seen.by((function.backward, *called), modules).names)
