"""Finds tensors that a step uses behind our back: captured by a closure and in need of a gradient.

An inner backward stops at the leaves that were declared. A tensor outside them would lose its gradient
without a word, so one tape's graph is walked: every leaf in it must be declared, and every node must
have been made by the tape itself. Leaves that the step makes (a point at which a penalty is differentiated)
are nobody else's: their gradients go nowhere in a plain loop either.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from executor.errors import CaptureError, DependentCaptures
from executor.memory.sizes import storage_addresses
from executor.rules.graph import Walk, makers
from executor.surroundings.seen import tensors_seen


def independent(captured: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The captured tensors that need a gradient, each once.

    Raises DependentCaptures when one was computed from another: the loop's own backward pass goes through
    the one to the other, and the caller's would go there again.
    """
    chosen = tuple({id(tensor): tensor for tensor in captured if tensor.requires_grad}.values())
    if len(chosen) > 1:
        _require_independent(chosen)
    return chosen


def _require_independent(captured: Sequence[Tensor]) -> None:
    leaves = {id(tensor): index for index, tensor in enumerate(captured) if tensor.grad_fn is None}
    nodes = {tensor.grad_fn: index for index, tensor in enumerate(captured) if tensor.grad_fn is not None}
    led_from = dict(nodes)
    walk = Walk(reversed(nodes))  # the first one first: what comes last is next
    for node in walk:
        index = led_from[node]
        for made, _ in node.next_functions:
            other = nodes.get(made, leaves.get(id(getattr(made, "variable", None))))
            if other is not None:
                raise DependentCaptures(index, other, tuple(captured[index].shape))
        led_from.update(dict.fromkeys(walk.go_on(node), index))


@contextmanager
def without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Within the context hooks of `tensors` do not fire, nor is their gradient retained: those of a captured
    tensor are to see its whole gradient, once, and not that of each tape.
    """
    hooks = [hooks for tensor in tensors if (hooks := tensor._backward_hooks)]  # noqa: SLF001 - there is no other way in
    kept = [dict(each) for each in hooks]
    retained = [(tensor, tensor.grad) for tensor in tensors if tensor.retains_grad]
    for each in hooks:
        each.clear()
    try:
        yield
    finally:
        for each, entries in zip(hooks, kept, strict=True):
            each.update(entries)
        for tensor, gradient in retained:
            tensor.grad = gradient


def sequence_number() -> int:
    """The number that autograd would give to a node made now; later nodes have larger ones."""
    with torch.enable_grad():
        node = torch.empty(0, requires_grad=True, device="cpu").view(0).grad_fn
    assert node is not None  # noqa: S101 - for the type checker
    return int(node._sequence_nr())


def are_numbered_by_threads(tensors: Iterable[Any]) -> bool:
    """Whether nodes of these tensors' graphs may have numbers of several threads: a backward pass on a device
    runs in a thread of that device, which numbers what it makes (gradients of gradients) by itself.
    """
    return any(isinstance(tensor, Tensor) and tensor.device.type != "cpu" for tensor in tensors)


def require_no_captures(
    roots: Iterable[Any],
    declared: Sequence[Tensor],
    since: int,
    function: Callable[..., Any],
    *,
    makes_leaves: bool = False,
) -> bool:
    """Raise CaptureError when the graph above `roots`, made after `since`, uses anything not `declared`.

    Returns whether it uses leaves that `function` made itself: those that it is not seen to lead to and,
    where it is not known yet that it `makes_leaves`, that nothing but the graph holds.
    """
    found = list(_undeclared(roots, declared, since))
    if not found:
        return False
    seen = list(tensors_seen(function))
    earlier = {id(tensor) for _, tensor in seen}
    captured = [
        tensor
        for tensor in found
        if tensor is None
        or id(tensor) in earlier
        or not (makes_leaves or _is_held_by_nobody_but(found, tensor))
    ]
    if captured:
        names = tuple(dict.fromkeys(_name(tensor, seen) for tensor in captured))
        raise CaptureError(names, *_remedies(captured, declared))
    return True


def _remedies(captured: Sequence[Tensor | None], declared: Sequence[Tensor]) -> Iterator[str]:
    """What to do where the usual remedy, to declare them, was followed: some of the `captured` are parameters
    whose shadows were `declared`, which lie in their memory.
    """
    if not storage_addresses(declared).isdisjoint(storage_addresses(captured)):
        yield (
            "parameters of module=… that the step reaches past it (in a dictionary or list of its own, or by "
            "a variable) are to be named in captured=[…] as well"
        )


def _is_held_by_nobody_but(holder: list[Any], tensor: Tensor) -> bool:
    """Whether `holder` is the only object of Python's that holds `tensor`: it is a variable of a function
    that returned, then, and no step can use it that did not make it. Looks at all objects, some milliseconds.
    """
    others = (each for each in gc.get_referrers(tensor) if not isinstance(each, FrameType))
    return all(each is holder for each in others)


def _undeclared(roots: Iterable[Any], declared: Sequence[Tensor], since: int) -> Iterator[Tensor | None]:
    """What the graph above `roots` ends in beside the `declared` tensors: leaves; and None for the result of
    an operation that ran before the node numbered `since` was made, so before the tape.

    Where threads of devices number nodes as well, a number below `since` proves nothing: the tape may have
    made that node all the same. It did not if the node leads to a leaf that nobody declared.
    """
    roots = list(roots)
    leaves = {id(tensor) for tensor in declared}
    stops = set(makers(declared))
    numbers_prove = not are_numbered_by_threads([*roots, *declared])
    may_be_earlier: set[Any] = set()
    """Nodes behind one with a number below `since`."""
    walk = Walk(makers(roots))
    for node in walk:
        if node in stops:
            continue
        variable = getattr(node, "variable", None)
        if variable is not None:
            if id(variable) not in leaves:
                yield None if node in may_be_earlier else variable
            continue
        is_smaller = node._sequence_nr() < since
        if is_smaller and numbers_prove:
            yield None
            continue
        new = walk.go_on(node)
        if is_smaller or node in may_be_earlier:
            may_be_earlier.update(new)


def _name(tensor: Tensor | None, seen: Sequence[tuple[str, Tensor]]) -> str:
    if tensor is None:
        names = dict.fromkeys(name for name, value in seen if value.grad_fn is not None)
        return " or ".join(names) or "a captured tensor made by earlier operations"
    name = next((name for name, value in seen if value is tensor), "a captured tensor")
    return f"{name} of shape {list(tensor.shape)}"
