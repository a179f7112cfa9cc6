"""What a step function sees besides its arguments: its closure, defaults, the globals and the attributes of
its object that its lines name; and what the functions among these see.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from executor.reads import is_library, names_read

DEEPEST = 3
"""Functions in closures of closures are looked into down to this depth."""


def values_seen(function: Callable[..., Any]) -> Iterator[Any]:
    """The values, each once."""
    visited: set[int] = set()
    todo: list[tuple[Any, int]] = [(function, 0)]
    while todo:
        value, depth = todo.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        yield value
        if depth <= DEEPEST and _is_looked_into(value, depth):
            todo.extend((each, depth + 1) for each in _seen_by(value))


def bystanders(function: Callable[..., Any], modules: Sequence[nn.Module]) -> tuple[nn.Module, ...]:
    """Modules that the function sees beside `modules` and that train nothing: their buffers and modes are
    part of a step (statistics of a BatchNorm, whether a dropout drops), as are those of the others.
    """
    found = [value for value in values_seen(function) if isinstance(value, nn.Module)]
    if not found:
        return ()
    known = {id(part) for module in modules for part in module.modules()}
    return tuple(
        each
        for each in found
        if id(each) not in known and not any(p.requires_grad for p in each.parameters())
    )


def own_generators(function: Callable[..., Any], modules: Iterable[nn.Module]) -> tuple[torch.Generator, ...]:
    """Random streams that the function sees, and those that are attributes of `modules`."""
    attributes = (value for module in modules for part in module.modules() for value in vars(part).values())
    found = (
        value for value in chain(values_seen(function), attributes) if isinstance(value, torch.Generator)
    )
    return tuple({id(each): each for each in found}.values())


def names_seen(function: Callable[..., Any], modules: Iterable[nn.Module]) -> frozenset[str]:
    """What the lines name of the function, of those that it sees, and of the modules' forward methods."""
    forwards = (type(part).forward for module in modules for part in module.modules())
    codes = (
        getattr(each, "__code__", None)
        for each in chain(values_seen(function), forwards)
        if _is_a_function(each)
    )
    return frozenset[str]().union(*(names_read(code) for code in codes if code is not None))


def _is_a_function(value: Any) -> bool:
    return isinstance(value, FunctionType | MethodType) and not is_library(value.__module__)


def _is_looked_into(value: Any, depth: int) -> bool:
    """Functions, partial ones and bound methods; of other objects the step function itself."""
    if isinstance(value, FunctionType | MethodType):
        return not is_library(value.__module__)
    return depth == 0 or isinstance(value, functools.partial)


def _seen_by(function: Any) -> Iterator[Any]:
    if isinstance(function, functools.partial):
        yield from (function.func, *function.args, *function.keywords.values())
        return
    owner = function.__self__ if isinstance(function, MethodType) else function
    plain = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(plain, FunctionType):  # an object that is called
        plain = getattr(type(plain), "__call__", None)  # noqa: B004 - the method, not whether there is one
    if not isinstance(plain, FunctionType):
        return
    names = names_read(plain.__code__)
    yield from _attributes(owner, names)
    yield from plain.__defaults__ or ()
    yield from (plain.__kwdefaults__ or {}).values()
    for cell in plain.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield from (plain.__globals__[name] for name in names if name in plain.__globals__)


def _attributes(owner: Any, names: Iterable[str]) -> Iterator[Any]:
    """Those of an object that its lines name."""
    if not isinstance(owner, nn.Module | type | FunctionType) and hasattr(owner, "__dict__"):
        found = vars(owner)
        yield from (found[name] for name in names if name in found)
