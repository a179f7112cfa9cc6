"""Where a step finds what it sees: entries of dictionaries (attributes of objects, globals, parameters and
buffers of modules) and variables of closures.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import CellType
from typing import Any, NamedTuple
from weakref import ref

from torch import Tensor

ABSENT = object()


class Variable:
    """A variable of a closure, as a dictionary in which it is the one entry, by whatever name."""

    __slots__ = ("cell",)

    def __init__(self, cell: CellType) -> None:
        self.cell = cell

    def __contains__(self, _name: Any) -> bool:
        return self.get(_name, ABSENT) is not ABSENT

    def __getitem__(self, _name: Any) -> Any:
        return self.cell.cell_contents

    def __setitem__(self, _name: Any, value: Any) -> None:
        self.cell.cell_contents = value

    def get(self, _name: Any, default: Any = None) -> Any:
        """As of a dictionary."""
        try:
            return self.cell.cell_contents
        except ValueError:  # it has no value yet, or none any more
            return default

    def pop(self, name: Any, default: Any = None) -> Any:
        """As of a dictionary."""
        value = self.get(name, default)
        del self.cell.cell_contents
        return value


Place = tuple[dict[Any, Any] | Variable, Any]
"""A dictionary and a key of it."""


def key_of(place: Place) -> Hashable:
    """Equal for the same place, as long as it lives."""
    slots, name = place
    return id(slots.cell if isinstance(slots, Variable) else slots), name


class Held(NamedTuple):
    """What a place held when it was seen."""

    place: Place
    refers: Any
    """The value; of a tensor, which lives no longer for being seen, a weak reference."""

    @classmethod
    def now(cls, place: Place, value: Any) -> Held:
        """That it holds `value`."""
        return cls(place, ref(value) if isinstance(value, Tensor) else value)

    @property
    def value(self) -> Any:
        """None where it was a tensor that is gone."""
        return self.refers() if type(self.refers) is ref else self.refers

    def is_same(self, other: Held) -> bool:
        """Whether the other holds the same object, or a number or word that is equal."""
        one, two = self.value, other.value
        if one is two:
            return True
        return type(one) is type(two) and type(one) in (int, float, complex, str) and one == two
