"""What objects and functions hold, read without running any lines of their own: these may do anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MemberDescriptorType
from typing import Any


def defaults_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The arguments that have a default, with it."""
    values, code = function.__defaults__ or (), function.__code__
    names = code.co_varnames[: code.co_argcount]
    yield from zip(names[len(names) - len(values) :], values, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def own_values(value: Any) -> Any:
    """The object's dictionary, past a `__getattr__` of its own; None where there is none."""
    try:
        return object.__getattribute__(value, "__dict__")
    except Exception:  # a proxy may stand for an object that does not exist now
        return None


def slot_values(value: Any) -> dict[str, Any]:
    """Those of the object's slots that are set, past a `__getattr__` of its own as well."""
    found: dict[str, Any] = {}
    for name, slot in slots_of(type(value)).items():
        with suppress(AttributeError):
            found[name] = slot.__get__(value)
    return found


def slots_of(kind: type) -> dict[str, MemberDescriptorType]:
    """The slots of a class and its bases, by name."""
    parts = [vars(each) for each in reversed(kind.__mro__) if "__slots__" in vars(each)]
    found = ((name, each) for part in parts for name, each in part.items())
    return {name: each for name, each in found if isinstance(each, MemberDescriptorType)}
