"""What a step function sees besides its arguments: its closure, defaults, the globals that it names, the
attributes of its object; and what the functions among these see.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn

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


def _is_looked_into(value: Any, depth: int) -> bool:
    """Functions, partial ones and bound methods; of other objects the step function itself."""
    if isinstance(value, functools.partial) or hasattr(value, "__func__"):
        return True
    if hasattr(value, "__code__"):
        return not str(getattr(value, "__module__", "")).startswith("torch.")
    return depth == 0


def _seen_by(function: Any) -> Iterator[Any]:
    if isinstance(function, functools.partial):
        yield from (function.func, *function.args, *function.keywords.values())
        return
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield from _attributes(owner)
    plain = getattr(function, "__func__", function)
    code = getattr(plain, "__code__", None)
    if code is None:  # an object that is called
        yield from _attributes(plain)
        yield type(plain).__call__
        return
    yield from plain.__defaults__ or ()
    yield from (plain.__kwdefaults__ or {}).values()
    for cell in plain.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield from (plain.__globals__[name] for name in code.co_names if name in plain.__globals__)


def _attributes(owner: Any) -> Iterator[Any]:
    if not isinstance(owner, nn.Module | type) and hasattr(owner, "__dict__"):
        yield from vars(owner).values()
