"""What steps leave in attributes and dictionaries besides states and outputs, such as the attention weights
that were computed last, or a loss of their own: afterwards it is what the forward pass left, and no gradient
goes through it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from executor.errors import GradientLost
from executor.surroundings.likeness import PLAIN
from executor.surroundings.put_back import Place, put_back
from executor.surroundings.reads import is_library
from executor.surroundings.seen import Function, Seen


class Written:
    """The places that steps write, by what they held when this was made and what they hold later: attributes
    of modules, and other objects and dictionaries that hold tensors, where the lines of a step name them.
    """

    def __init__(self, functions: Sequence[Function | None], seen: Seen) -> None:
        self._functions = functions
        self._declared = seen.declared
        self._before = {_key(place): _kept(value) for place, value in _held(seen)}
        self._places: list[Place] = []
        """Those to be put back: a number may have been written and be the same as before."""

    def look(self) -> bool:
        """Whether any were written by now. To be called at the end of the forward pass."""
        held = [*_held(Seen.by(self._functions, self._declared))]
        written = [place for place, value in held if not _is_kept(self._before.get(_key(place)), value)]
        numbers = [place for place, value in held if not isinstance(value, Tensor)]
        self._places = [*written, *numbers]
        return bool(written)

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """After the context they hold what they hold now: steps run again in it."""
        with put_back(self._places):
            yield

    def cut_off(self, differentiable: Sequence[Tensor]) -> None:
        """Let the tensors in these places lead to the `differentiable` ones, by a backward pass that raises
        GradientLost: that of the tape that they belong to would end where nobody looks.
        """
        for slots, name in self._places:
            value = slots.get(name)
            if isinstance(value, Tensor) and value.grad_fn is not None:
                slots[name] = _CutOff.apply(f"{name!r}", value.detach(), *differentiable)  # type: ignore[no-untyped-call]


@contextmanager
def nothing_written(functions: Sequence[Function | None], seen: Seen) -> Iterator[None]:
    """After the context those places hold what they held when they were `seen`: steps are tried in it."""
    before = {_key(place): value for place, value in _held(seen)}
    try:
        yield
    finally:
        for (slots, name), value in [*_held(Seen.by(functions, seen.declared))]:
            if _key((slots, name)) not in before:
                del slots[name]
            elif before[_key((slots, name))] is not value:
                slots[name] = before[_key((slots, name))]


class _CutOff(torch.autograd.Function):
    """A tensor, and a backward pass that says why there is none."""

    @staticmethod
    def forward(ctx: Any, name: str, tensor: Tensor, *_differentiable: Tensor) -> Tensor:
        ctx.name = name
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> Any:
        raise GradientLost(ctx.name)


def _held(seen: Seen) -> Iterator[tuple[Place, Any]]:
    for each in seen.tensors:
        tensor = each.tensor()
        if each.place is not None and tensor is not None:
            yield each.place, tensor
    for module in seen.modules:
        for part in module.modules():
            slots = vars(part)
            takes_plain = not is_library(type(part).__module__)
            for name, value in slots.items():
                if isinstance(value, Tensor) or (takes_plain and type(value) in PLAIN):
                    yield (slots, name), value


def _key(place: Place) -> Hashable:
    slots, name = place
    return id(slots), name


def _kept(value: Any) -> Any:
    """A tensor lives no longer for being noted."""
    return ref(value) if isinstance(value, Tensor) else value


def _is_kept(kept: Any, value: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(kept, ref) and kept() is value
    return type(kept) is type(value) and (kept == value or value != value)
