"""What counts of one value, when two calls of a loop are compared.

Used to recognise calls that need no probe (`executor.known`). Where two calls count as alike though they are
not, bytes would be used that no plan counts; where they count as different though they are alike, they are
probed again. So values that steps are made of count, and those that merely move do not: a tensor counts by
its shape, a float by whether it is 0, 1 or another number (a rate that is annealed changes no size, a
probability of 0 draws nothing), everything else by its value or its contents. What counts of containers,
objects and functions is gathered by `executor.surroundings.seen`.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
from collections.abc import Callable, Hashable, Iterator
from types import CodeType
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from executor.trees import leaf_description

LONG = 256
"""Containers of more plain values count by a digest."""
PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
"""Types of values that lead to no others."""


class Same:
    """Equal to another `Same` of the same object, as long as that object lives: an identity may be used again
    by another one. Raises TypeError for a value that no weak reference can be made to.
    """

    __slots__ = ("_hash", "_refers")

    def __init__(self, value: Any) -> None:
        self._hash = id(value)
        self._refers = ref(value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same):
            return NotImplemented
        mine = self._refers()
        return mine is not None and mine is other._refers()

    def __hash__(self) -> int:
        return self._hash


def tensor_likeness(value: Any) -> Hashable:
    """Shape, strides, type, device, class and need of a gradient of a tensor; the type of anything else.

    Raises TypeError for a parameter of a lazy module that has no shape yet.
    """
    if not isinstance(value, Tensor):
        return leaf_description(value)
    if isinstance(value, UninitializedParameter | UninitializedBuffer):
        raise TypeError("a lazy module has no parameters yet: call it once before it is run in a budget")
    layout = value.stride() if value.layout is torch.strided else value.layout
    return (*leaf_description(value), layout, type(value), value.requires_grad)


def attributes_likeness(owner: Any) -> Iterator[tuple[str, Hashable]]:
    """What counts of `plain_attributes`: a module's sizes, flags and rates."""
    for name, value in plain_attributes(owner):
        yield name, _tuple_likeness(value) if isinstance(value, tuple) else plain_likeness(value)


def plain_attributes(owner: Any) -> Iterator[tuple[str, Any]]:
    """The public attributes with plain values, tuples among them."""
    for name, value in vars(owner).items():
        if issubclass(type(value), bool | int | float | str | tuple) and not name.startswith("_"):
            yield name, value


def code_of(function: Callable[..., Any]) -> Any:
    """What stays the same when a function is defined anew by the same lines: its code; of a partial function
    that of the whole one; of an object that is called its class.
    """
    lines = lines_of(function)
    return lines if isinstance(lines, CodeType | type) else type(function)


def lasting(value: Any) -> Any:
    """What an object that is made anew for every call `stands_for`; any other object itself."""
    return getattr(value, "__dict__", {}).get("stands_for", value)


def lines_of(function: Any) -> Any:
    """The code of a function, whole where it is partial; the class of an object that is called."""
    while isinstance(function, functools.partial):
        function = function.func
    plain = getattr(function, "__func__", function)
    return getattr(plain, "__code__", type(plain))


def plain_likeness(value: Any) -> tuple[type, Any]:
    """Type and value of one of the `PLAIN` types; of floats other than 0 and 1 the type."""
    if isinstance(value, float):
        return (float, value if value in (0.0, 1.0) else None)
    return (type(value), value)


def _tuple_likeness(value: tuple[Any, ...]) -> Hashable:
    """A tuple with plain values in it, other parts by their type."""
    return tuple(
        _tuple_likeness(part)
        if issubclass(type(part), tuple)
        else plain_likeness(part)
        if type(part) in PLAIN
        else type(part)
        for part in value
    )


def plain_values_likeness(kind: type, values: tuple[Any, ...]) -> Hashable:
    """Of a container of type `kind` with plain values."""
    if len(values) <= LONG:
        return (kind, tuple(plain_likeness(value) for value in values))
    types = set(map(type, values))
    if types == {str}:
        return (kind, len(values), hash(values))
    if float in types:
        values = tuple(plain_likeness(value)[1] if type(value) is float else value for value in values)
    return (kind, len(values), hashlib.blake2b(marshal.dumps(values, 2)).digest())


class Unlike:
    """Equal to nothing else: the end of what is looked at."""


def identity_likeness(value: Any) -> Hashable:
    """Of an object that says nothing about itself: which one it is; where it does not take weak references,
    its type and value; where it has no hash either, nothing that another call could have in common.
    """
    try:
        return Same(value)
    except TypeError:  # Python's small types take no weak references
        pass
    try:
        hash(value)
    except TypeError:
        return Unlike()
    return (type(value), value)
