"""What steps leave in attributes and dictionaries besides states and outputs, such as the attention weights
that were computed last, or a loss of their own: afterwards it is what the forward pass left, and no gradient
goes through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from executor.errors import GradientLost
from executor.surroundings.likeness import PLAIN
from executor.surroundings.own_values import is_tensor
from executor.surroundings.places import ABSENT, Held, Place, key_of
from executor.surroundings.put_back import put_back
from executor.surroundings.reads import is_library
from executor.surroundings.seen import Seen


class Written:
    """The places that steps write, by what they held when this was made and what they hold later: attributes
    of modules, and other objects and dictionaries that hold tensors, where the lines of a step name them.
    """

    def __init__(self, seen: Seen) -> None:
        self._before = {key_of(each.place): each for each in _held(seen)}
        self._places: list[Place] = []
        """Those to be put back: a number may have been written and be the same as before."""

    def remember(self, seen: Seen) -> bool:
        """Take what is `seen` at the end of the forward pass; whether any of them were written by then."""
        held = [*_held(seen)]
        found = ((self._before.get(key_of(each.place)), each) for each in held)
        written = [each.place for was, each in found if was is None or not was.is_same(each)]
        numbers = [each.place for each in held if not is_tensor(each.value)]
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
            if is_tensor(value) and value.grad_fn is not None:
                slots[name] = _CutOff.apply(f"{name!r}", value.detach(), *differentiable)  # type: ignore[no-untyped-call]


@contextmanager
def nothing_written(seen: Seen) -> Iterator[None]:
    """After the context places that hold tensors, or held some when they were `seen`, hold what they held
    then: steps are tried in it. A place may have held a number, or None: a cache that the first step fills.
    """
    before = {key_of(each.place): each.value for each in _everything(seen)}
    tensors = [each.place for each in _held(seen)]
    try:
        yield
    finally:
        for slots, name in [*tensors, *(each.place for each in _held(seen.again()))]:
            was = before.get(key_of((slots, name)), ABSENT)
            if was is ABSENT:
                slots.pop(name, None)
            elif slots.get(name, ABSENT) is not was:
                slots[name] = was


class _CutOff(torch.autograd.Function):
    """A tensor, and a backward pass that says why there is none."""

    @staticmethod
    def forward(ctx: Any, name: str, tensor: Tensor, *_differentiable: Tensor) -> Tensor:
        ctx.name = name
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> Any:
        raise GradientLost(ctx.name)


def _held(seen: Seen) -> Iterator[Held]:
    """Tensors wherever they can be put back, and numbers of modules that no library wrote."""
    yield from (each for each in seen.held if is_tensor(each.value))
    for module in seen.modules:
        for part in module.modules():
            slots = vars(part)
            takes_plain = not is_library(type(part).__module__)
            for name, value in slots.items():
                if is_tensor(value) or (takes_plain and type(value) in PLAIN):
                    yield Held.now((slots, name), value)


def _everything(seen: Seen) -> Iterator[Held]:
    """All that those places, and others like them, hold."""
    yield from seen.held
    for module in seen.modules:
        for part in module.modules():
            yield from (Held.now((vars(part), name), value) for name, value in vars(part).items())
