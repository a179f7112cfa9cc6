"""What objects and functions hold, read without running any lines of their own: these may do anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MemberDescriptorType
from typing import Any, TypeGuard
from weakref import ProxyTypes

from torch import Tensor


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


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor, of something that may be a proxy of an object that is gone, whose class nobody
    can ask for.
    """
    return issubclass(type(value), Tensor)


def behind_proxy(value: Any) -> Any:
    """What a weak proxy stands for, None where that is gone; any other value itself. A proxy passes for an
    object of another's class, and no weak reference to it can be made: trainers hand some to modules.
    """
    if type(value) not in ProxyTypes:
        return value
    try:
        return value.__init__.__self__
    except ReferenceError:
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
