"""What a step function sees besides its arguments, gathered in one look (`executor.surroundings.look`): what
counts of it for telling calls apart, and the modules and random streams that are part of a step without being
declared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from executor.surroundings.likeness import lines_of
from executor.surroundings.look import MOST_BESIDE, MOST_VALUES, Look, SeenTensor, SeenValue
from executor.surroundings.own_values import is_tensor
from executor.surroundings.places import Contents, Held, Place
from executor.surroundings.streams import NumpyStream, PythonStream

Function = Callable[..., Any]


class Seen(NamedTuple):
    """What some functions and modules see."""

    functions: tuple[Function | None, ...]
    """Those that were given."""
    values: tuple[SeenValue, ...]
    """What counts of everything, in the order in which it was met."""
    declared: tuple[nn.Module, ...]
    """The modules that were given."""
    met: tuple[nn.Module, ...]
    """Other modules: their buffers and modes are part of a step, too (statistics of a BatchNorm, whether a
    dropout drops).
    """
    generators: tuple[torch.Generator, ...]
    streams: tuple[PythonStream | NumpyStream, ...]
    """Other random streams."""
    names: frozenset[str]
    """Those in the lines that were met."""
    plain: tuple[tuple[str, Any], ...]
    """Numbers and strings that were met outside of lists, with their names."""
    tensors: tuple[SeenTensor, ...]
    """Tensors that were met outside of private lists, no parameters or buffers of modules."""
    held: tuple[Held, ...]
    """What was found in places that it can be put back to: variables, globals, attributes, entries."""
    lists: tuple[Contents, ...]
    """Lists that were met, private ones too, with what was in them."""
    arrays: tuple[tuple[str, Any], ...]
    """Arrays of numpy that were met, with their names."""
    differentiable: frozenset[int]
    """Identities of tensors that were met, no parameters of modules, and need a gradient."""

    @classmethod
    def by(cls, functions: Iterable[Function | None], modules: Sequence[nn.Module]) -> Seen:
        """What `functions` and the forward methods of `modules` see."""
        functions = tuple(functions)
        anchor = lines_of(functions[0])
        names = _names.get(id(anchor), (anchor, frozenset[str]()))[1]
        while True:
            look, met = _around(functions, modules, names)
            if look.names == names:
                return cls(
                    functions,
                    tuple(look.found),
                    tuple(modules),
                    met,
                    tuple(look.generators.values()),
                    tuple(look.streams.values()),
                    look.reads,
                    tuple(look.plain),
                    tuple(look.tensors),
                    tuple(look.held),
                    tuple(look.lists),
                    tuple(look.arrays),
                    frozenset(look.differentiable),
                )
            names = look.names  # a function that was met later reads more of what was met before
            if len(_names) >= MOST_VALUES:
                _names.clear()
            _names[id(anchor)] = (anchor, names)

    def again(self) -> Seen:
        """What the same functions and modules see now."""
        return Seen.by(self.functions, self.declared)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """Those that were given, then those that were met."""
        return (*self.declared, *self.met)


_names: dict[int, tuple[Any, frozenset[str]]] = {}
"""By the lines of a step: the names that it and its helpers read."""


def _around(
    functions: Sequence[Function | None], modules: Sequence[nn.Module], names: frozenset[str]
) -> tuple[Look, tuple[nn.Module, ...]]:
    """One look, and the modules that were met besides those given."""
    look, beside = Look(names), Look(names, MOST_BESIDE)
    _at_all(look, functions)
    parts: dict[int, nn.Module] = {}
    found: list[nn.Module] = []
    new = list(modules)
    while True:  # once at least: the functions may have met some
        for part in (part for module in new for part in module.modules() if id(part) not in parts):
            parts[id(part)] = part
            look.at_part(part)
        while look.private:
            beside.at_private(*look.private.pop())
        met = {**look.modules, **beside.modules}
        new = [each for key, each in met.items() if key not in parts]
        if not new:
            break
        found += new
    look.names |= beside.names
    look.reads |= beside.reads
    look.differentiable |= beside.differentiable
    look.generators |= beside.generators
    look.streams |= beside.streams
    return look, tuple(found)


def _at_all(look: Look, functions: Iterable[Function | None]) -> None:
    for function in functions:
        look.at(getattr(function, "__name__", type(function).__name__), function)


class _Named(Look):
    """A look that keeps the tensors that it meets, with their names."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(names)
        self.named: list[tuple[str, Tensor]] = []

    def _of_tensor(self, name: str, tensor: Tensor, place: Place | None = None) -> Hashable:
        self.named.append((f"captured {name!r}", tensor))
        return super()._of_tensor(name, tensor, place)

    def _of_module(self, name: str, module: nn.Module) -> Hashable:
        for inner, parameter in module.named_parameters():
            self.named.append((f"parameter {inner!r} of captured {name!r}", parameter))
        return super()._of_module(name, module)


def tensors_seen(function: Function) -> Iterator[tuple[str, Tensor]]:
    """What `function` and the modules that it sees lead to, each described by where it was found: for
    errors.
    """
    look = _Named(Seen.by((function,), ()).names)
    _at_all(look, (function,))
    for part in (part for module in tuple(look.modules.values()) for part in module.modules()):
        look.at_part(part)
    while look.private:
        look.at_private(*look.private.pop())
    yield from look.named
    for part in (part for module in look.modules.values() for part in module.modules()):
        for key, value in vars(part).items():  # weights that are views of a larger one, or computed
            if is_tensor(value) and value.grad_fn is not None:
                yield f"captured '{type(part).__name__}.{key}'", value
