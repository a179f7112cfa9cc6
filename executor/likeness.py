"""What makes one step function the same work as another: their lines, and the values that they see.

Used to recognise calls that need no probe (`executor.known`). Where two calls count as alike though they are
not, bytes would be used that no plan counts; where they count as different though they are alike, they are
probed again. So values that steps are made of count, and those that merely move do not: a tensor counts by
its shape, a float by whether it is 0, 1 or another number (a rate that is annealed changes no size, a
probability of 0 draws nothing), a list by the kinds of its parts and the number of its tensors (steps count
and collect in lists), everything else by its value or its contents.

An object counts by what the lines read of it: attributes that they name, as far as they are public or neither
numbers nor lists, and the methods that they name. Functions that they call are looked into likewise, those of
libraries aside. Modules count by identity here, by their modes in `executor.known`.

After `MOST_VALUES` no more is looked at: such a call is like no other.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from enum import Enum
from numbers import Integral, Real
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn

from executor.reads import is_library, is_ours, may_read_any, names_read
from executor.trees import leaf_description

MOST_VALUES = 2_000
"""Objects, functions and containers that are looked into; tensors and plain values are quick."""
DEEPEST = 40
"""Of them in one another."""
LONG = 256
"""Containers of more plain values count by a digest."""

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
_NUMBERS = frozenset({bool, int, float, complex})
_NAMESPACES = frozenset({"SimpleNamespace", "Namespace"})
"""Classes of the standard library whose objects are nothing but their attributes."""
_CALLED = frozenset(
    f"__{name}__"
    for name in (
        *(
            "call",
            "getitem",
            "getattr",
            "iter",
            "next",
            "len",
            "contains",
            "enter",
            "exit",
            "bool",
            "int",
            "index",
        ),
        *("add", "sub", "mul", "matmul", "truediv", "radd", "rsub", "rmul", "rmatmul", "rtruediv"),
    )
)
"""Methods that lines call without naming them."""


class Same:
    """Equal to another of the same living object. What cannot be referred to weakly is compared by value."""

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


class SeenValue(NamedTuple):
    """What counts of one value that a step sees."""

    name: str
    counts: Hashable


def seen_values(functions: Iterable[Any], modules: Iterable[nn.Module]) -> tuple[SeenValue, ...]:
    """What counts of everything that `functions` and the forward methods of `modules` see."""
    functions, parts = tuple(functions), tuple(part for each in modules for part in each.modules())
    anchor = _lines_of(functions[0])
    names = _names.get(id(anchor), (anchor, frozenset[str]()))[1]
    while True:
        look = _Look(names)
        for index, function in enumerate(functions):
            look.at(f"function {index}", function)
        for part in parts:
            look.at_module(part)
        if look.names == names:
            return tuple(look.found)
        names = look.names  # a function that was met later reads more of what was met before
        if len(_names) >= MOST_VALUES:
            _names.clear()
        _names[id(anchor)] = (anchor, names)


_names: dict[int, tuple[Any, frozenset[str]]] = {}
"""By the lines of a step: the names that it and its helpers read."""


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
            yield name, _of_tuple(value) if isinstance(value, tuple) else _of_plain(value)


def code_of(function: Callable[..., Any]) -> Any:
    """What stays the same when a function is defined anew by the same lines: its code; of a partial function
    that of the whole one; of an object that is called its class.
    """
    lines = _lines_of(function)
    return lines if isinstance(lines, CodeType | type) else type(function)


def lasting(value: Any) -> Any:
    """What an object that is made anew for every call `stands_for`; any other object itself."""
    return getattr(value, "__dict__", {}).get("stands_for", value)


def _lines_of(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    plain = getattr(function, "__func__", function)
    return getattr(plain, "__code__", type(plain))


def _of_plain(value: Any) -> tuple[type, Any]:
    if isinstance(value, float):
        return (float, value if value in (0.0, 1.0) else None)
    return (type(value), value)


def _of_tuple(value: tuple[Any, ...]) -> Hashable:
    """A tuple with plain values in it, other parts by their type."""
    return tuple(
        _of_tuple(part)
        if isinstance(part, tuple)
        else _of_plain(part)
        if type(part) in _PLAIN
        else type(part)
        for part in value
    )


def _of_many_plain(kind: type, values: tuple[Any, ...]) -> Hashable:
    if len(values) <= LONG:
        return (kind, tuple(_of_plain(value) for value in values))
    types = set(map(type, values))
    if types == {str}:
        return (kind, len(values), hash(values))
    if float in types:
        values = tuple(_of_plain(value)[1] if type(value) is float else value for value in values)
    return (kind, len(values), hashlib.blake2b(marshal.dumps(values, 2)).digest())


class _Unlike:
    """Equal to nothing else: the end of what is looked at."""


class _Look:
    """One look around: `found` has what counts, in the order in which it was met."""

    def __init__(self, names: frozenset[str]) -> None:
        self.found: list[SeenValue] = []
        self.names = names
        self._met: dict[int, int] = {}
        self._depth = 0

    def at(self, name: str, value: Any) -> None:
        """Take in a value, and what it leads to."""
        kind = type(value)
        if kind in _PLAIN:
            self._add(name, _of_plain(value))
        elif isinstance(value, Tensor):
            self._add(name, tensor_likeness(value))
        elif isinstance(value, nn.Module):
            self._add(name, Same(lasting(value)))
        elif id(value) in self._met:
            self._add(name, ("again", self._met[id(value)]))
        elif len(self._met) >= MOST_VALUES or self._depth >= DEEPEST:
            self._add(name, _Unlike())
        else:
            self._met[id(value)] = len(self._met)
            self._depth += 1
            self._look_into(name, value)
            self._depth -= 1

    def at_module(self, part: nn.Module) -> None:
        """Take in what the lines of a module read of it beside its plain values."""
        if not is_library(type(part).__module__) and id(part) not in self._met:
            self._met[id(part)] = len(self._met)
            name = type(part).__name__
            self._attributes(
                name, {key: each for key, each in vars(part).items() if type(each) not in _PLAIN}
            )
            self._methods(name, type(part), also=frozenset({"forward"}))

    def _add(self, name: str, counts: Hashable) -> None:
        self.found.append(SeenValue(name, counts))

    def _look_into(self, name: str, value: Any) -> None:
        if isinstance(value, FunctionType):
            self._function(name, value)
        elif isinstance(value, MethodType):
            self.at(name, value.__func__)
            self.at(name, value.__self__)
        elif isinstance(value, functools.partial):
            for part in (value.func, *value.args, value.keywords):
                self.at(name, part)
        elif isinstance(value, dict | Mapping):
            self._mapping(name, value)
        elif isinstance(value, tuple):
            self._tuple(name, value)
        elif isinstance(value, list | set | frozenset | deque):
            self._add(name, (type(value), self._kinds(value)))
        elif isinstance(value, ModuleType):
            if not is_library(value.__name__):
                self._attributes(name, vars(value))
        elif isinstance(value, type):
            self._class(name, value)
        else:
            self._object(name, value)

    def _function(self, name: str, function: FunctionType) -> None:
        code = function.__code__
        self._add(name, code)
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.at(f"a default of {function.__name__}", value)
        for inner, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # a name that is bound later
                continue
            self.at(inner, value)
        if is_library(function.__module__):
            return
        reads, around = names_read(code), function.__globals__
        if not reads <= self.names:
            self.names |= reads
        for inner in sorted(reads & around.keys()):
            self.at(inner, around[inner])

    def _mapping(self, name: str, values: Mapping[Any, Any]) -> None:
        kinds = set(map(type, values.values())) | set(map(type, values))
        if kinds <= _PLAIN:
            if len(values) > LONG:
                for parts in (values, values.values()):
                    self._add(name, _of_many_plain(type(values), tuple(parts)))
                return
            for key, value in values.items():
                self._add(f"{name}[{key!r}]", (key, _of_plain(value)))
        else:
            for key, value in values.items():
                self.at(f"a key of {name}", key)
                self.at(f"{name}[{key if type(key) in _PLAIN else '…'!r}]", value)
        self._add(name, (type(values), len(values)))

    def _tuple(self, name: str, values: tuple[Any, ...]) -> None:
        if set(map(type, values)) <= _PLAIN:
            self._add(name, _of_many_plain(type(values), values))
            return
        self._add(name, (type(values), len(values)))
        for index, value in enumerate(values):
            self.at(f"{name}[{index}]", value)

    def _kinds(self, values: Iterable[Any]) -> Hashable:
        """Of a list's parts: numbers count by type, tensors by their number, others by what they are."""
        types = set(map(type, values))
        kinds: set[Hashable] = set(types & _NUMBERS)
        tensors: Counter[Hashable] = Counter()
        outer = self.found
        for value in values if types - _NUMBERS else ():
            if isinstance(value, Tensor):
                tensors[tensor_likeness(value)] += 1
            elif type(value) not in _NUMBERS:
                self.found = []
                self.at("", value)
                kinds.add(tuple(self.found))
        self.found = outer
        return frozenset(kinds), frozenset(tensors.items())

    def _object(self, name: str, value: Any) -> None:
        kind = type(value)
        own = getattr(value, "__dict__", None)
        if isinstance(value, Integral | Real):  # numpy's, say
            self._add(name, _of_plain(int(value) if isinstance(value, Integral) else float(value)))
        elif isinstance(value, Enum):
            self._add(name, (kind, value.name))
        elif hasattr(kind, "__array_interface__"):
            self._add(name, (kind, value.shape, value.dtype))
        elif isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
            self._add(name, value.__name__)
            self.at(name, value.__self__)
        elif isinstance(own, dict) or _slots_of(kind):
            self._instance(name, value, own or {})
        else:
            self._add(name, _identity(value))

    def _instance(self, name: str, value: Any, own: Mapping[str, Any]) -> None:
        """The lines of libraries are not looked at: their objects count by identity, too, and ours by all
        their attributes.
        """
        kind: Any = type(value)
        self._add(name, kind)
        slots = {slot: getattr(value, slot) for slot in _slots_of(kind) if hasattr(value, slot)}
        if not (own or slots or callable(value)):  # a marker, which lines compare with others
            self._add(name, _identity(value))
        self._attributes(
            name, {**own, **slots}, all_of_them=is_ours(kind.__module__) or may_read_any(self.names)
        )
        if not is_library(kind.__module__):
            self._methods(name, kind)
        elif not is_ours(kind.__module__) and kind.__name__ not in _NAMESPACES:
            self._add(name, _identity(value))

    def _class(self, name: str, value: type) -> None:
        self._add(name, value)
        if not is_library(value.__module__):
            self._methods(name, value)

    def _attributes(self, name: str, values: Mapping[str, Any], *, all_of_them: bool = False) -> None:
        """Those that the lines read. Private numbers and lists are left alone: objects count, and collect, in
        them.
        """
        for inner in sorted(values if all_of_them else values.keys() & self.names):
            value = values[inner]
            if not (inner.startswith("_") and isinstance(value, int | float | list)):
                self.at(f"{name}.{inner}", value)

    def _methods(self, name: str, kind: type, also: frozenset[str] = frozenset()) -> None:
        """Functions and values of a class and its bases that the lines read."""
        names = self.names | _CALLED | also
        for each in kind.__mro__:
            if is_library(each.__module__):
                continue
            for inner in sorted(names & each.__dict__.keys()):
                value = each.__dict__[inner]
                if isinstance(value, property):
                    value = value.fget
                self.at(f"{name}.{inner}", getattr(value, "__func__", value))


def _slots_of(kind: type) -> tuple[str, ...]:
    found: list[str] = []
    for each in kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        found += (slots,) if isinstance(slots, str) else slots
    return tuple(slot for slot in found if slot not in ("__dict__", "__weakref__"))


def _identity(value: Any) -> Hashable:
    """Of an object that says nothing about itself."""
    try:
        return Same(value)
    except TypeError:  # small ones, which are nobody's keepers
        pass
    try:
        hash(value)
    except TypeError:
        return _Unlike()
    return (type(value), value)
