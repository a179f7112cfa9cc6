"""Where a step finds what it sees: entries of dictionaries (attributes of objects, globals, parameters and
buffers of modules), variables of closures, and attributes that no dictionary holds.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import CellType
from typing import Any, NamedTuple
from weakref import ref

from executor.surroundings.own_values import is_tensor

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


class Attributes:
    """Attributes of a class, or those of an object that are slots, as a dictionary; by no lines of theirs."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __contains__(self, name: str) -> bool:
        return self.get(name, ABSENT) is not ABSENT

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        (type if isinstance(self.owner, type) else object).__setattr__(self.owner, name, value)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dictionary."""
        if isinstance(self.owner, type):
            return vars(self.owner).get(name, default)
        try:
            return object.__getattribute__(self.owner, name)
        except AttributeError:
            return default

    def pop(self, name: str, default: Any = None) -> Any:
        """As of a dictionary."""
        value = self.get(name, default)
        (type if isinstance(self.owner, type) else object).__delattr__(self.owner, name)
        return value


Place = tuple[dict[Any, Any] | Variable | Attributes, Any]
"""A dictionary and a key of it."""


def key_of(place: Place) -> Hashable:
    """Equal for the same place, as long as it lives."""
    slots, name = place
    if isinstance(slots, Variable):
        return id(slots.cell), name
    return id(slots.owner if isinstance(slots, Attributes) else slots), name


def _referred(value: Any) -> Any:
    """The value; of a tensor, which lives no longer for being seen, a weak reference."""
    return ref(value) if is_tensor(value) else value


def _value_of(referred: Any) -> Any:
    return referred() if type(referred) is ref else referred


def are_same(one: Any, two: Any) -> bool:
    """Whether they are one object, or numbers or words that are equal."""
    if one is two:
        return True
    return type(one) is type(two) and type(one) in (int, float, complex, str) and bool(one == two)


class Held(NamedTuple):
    """What a place held when it was seen."""

    place: Place
    referred: Any

    @classmethod
    def now(cls, place: Place, value: Any) -> Held:
        """That it holds `value`."""
        return cls(place, _referred(value))

    @property
    def value(self) -> Any:
        """None where it was a tensor that is gone."""
        return _value_of(self.referred)

    def is_same(self, other: Held) -> bool:
        """Whether the other holds the same."""
        return are_same(self.value, other.value)


class Contents(NamedTuple):
    """What was in a list when it was seen."""

    of: list[Any]
    referred: tuple[Any, ...]

    @classmethod
    def now(cls, values: list[Any]) -> Contents:
        """What is in it."""
        return cls(values, tuple(map(_referred, values)))

    @property
    def values(self) -> list[Any]:
        """None in the place of a tensor that is gone."""
        return [*map(_value_of, self.referred)]

    def is_same(self, other: Contents) -> bool:
        """Whether the other one found the same."""
        return are_all_same(self.values, other.values)


def are_all_same(ones: list[Any], others: list[Any]) -> bool:
    """Whether two lists hold the same."""
    return len(ones) == len(others) and all(map(are_same, ones, others))
