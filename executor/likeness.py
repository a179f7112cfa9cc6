"""What makes one step function the same work as another: their lines, and the values that they see.

Used to recognise calls that need no probe (`executor.known`). Where two calls count as alike though they are
not, bytes would be used that no plan counts; where they count as different though they are alike, they are
probed again. So values that steps are made of count, and those that merely move do not: a tensor counts by
its shape, a float by whether it is 0, 1 or another number (a rate that is annealed changes no size, a
probability of 0 draws nothing), a list by the kinds of its parts (steps count and collect in lists),
everything else by its value or its contents.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from executor.trees import leaf_description

DEEPEST = 4
"""Functions in closures of closures, and containers, count by their contents down to this depth."""


def likeness(value: Any, depth: int = 0) -> Hashable:
    """Equal for values that ask the same of memory. Modules, and objects that say nothing about themselves,
    count by identity.
    """
    if isinstance(value, Tensor):
        return tensor_likeness(value)
    if isinstance(value, float):
        return (float, value if value in (0.0, 1.0) else None)
    if value is None or isinstance(value, bool | int | str | bytes | complex):
        return (type(value), value)
    if depth > DEEPEST:
        return (type(value), id(value))
    if isinstance(value, tuple):
        return (type(value), tuple(likeness(part, depth + 1) for part in value))
    if isinstance(value, list):
        return (list, frozenset(_kind(part, depth + 1) for part in value))
    if isinstance(value, Mapping):
        return (type(value), tuple((str(key), likeness(part, depth + 1)) for key, part in value.items()))
    if isinstance(value, functools.partial):
        return tuple(likeness(part, depth + 1) for part in (value.func, value.args, value.keywords))
    return _of_callable(value, depth)


def _kind(value: Any, depth: int) -> Hashable:
    """A list's part: steps count and collect in lists, so numbers there count by their type."""
    if isinstance(value, bool | int | float | complex):
        return (type(value),)
    return likeness(value, depth)


def tensor_likeness(value: Any) -> Hashable:
    """Shape, strides, type, device and need of a gradient of a tensor; the type of anything else."""
    if not isinstance(value, Tensor):
        return leaf_description(value)
    layout = value.stride() if value.layout is torch.strided else value.layout
    return (*leaf_description(value), layout, value.requires_grad)


def attributes_likeness(owner: Any) -> Iterator[tuple[str, Hashable]]:
    """The plain values among an object's public attributes: a module's sizes, flags and rates."""
    for name, value in vars(owner).items():
        if isinstance(value, bool | int | float | str | tuple) and not name.startswith("_"):
            yield name, likeness(value, DEEPEST)


def code_of(function: Callable[..., Any]) -> Any:
    """What stays the same when a function is defined anew by the same lines; other objects are themselves."""
    plain = getattr(function, "__func__", function)
    return getattr(plain, "__code__", plain)


def _of_callable(value: Any, depth: int) -> Hashable:
    code = code_of(value)
    if isinstance(code, CodeType):
        return _of_function(value, code, depth)
    if callable(value) and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        return (type(value), likeness(vars(value), depth + 1))
    return (type(value), id(value))


def _of_function(value: Any, code: CodeType, depth: int) -> Hashable:
    plain = getattr(value, "__func__", value)
    seen = (*(plain.__defaults__ or ()), *(plain.__kwdefaults__ or {}).values(), *_closure(plain))
    owner = getattr(value, "__self__", None)
    others = tuple(likeness(part, depth + 1) for part in seen if part is not value)
    return (code, id(owner), others, tuple(_globals(plain, code)))


def _closure(function: Callable[..., Any]) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is bound later
            continue


def _globals(function: Any, code: CodeType) -> Iterator[Hashable]:
    """Plain values and tensors among the globals that the function's own lines name."""
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, bool | int | float | str | tuple | Tensor):
            yield name, likeness(value, DEEPEST)
