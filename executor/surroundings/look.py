"""The walk through what a step sees besides its arguments.

It begins at the step function and goes on to its closure, its defaults, the globals that its lines name and
the object whose method it is; then to what each of these holds, and so on. Of an object it looks at the
attributes and methods that some line names. It follows functions into their own lines, but not into those of
libraries.

On the way it notes what counts of each value when two calls are compared (`executor.surroundings.likeness`):
of a list, the kinds of its parts and how many tensors there are, since steps count and collect in lists; of
an object, its attributes, but for private numbers and lists; of a module, which one it is (`executor.known`
adds whether it trains).

After `MOST_VALUES` values it looks no further: such a call is like no other.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping
from contextvars import ContextVar
from enum import Enum
from itertools import islice
from numbers import Integral, Real
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn

from executor.surroundings.likeness import (
    LONG,
    PLAIN,
    Same,
    Unlike,
    identity_likeness,
    lasting,
    plain_likeness,
    plain_values_likeness,
    tensor_likeness,
)
from executor.surroundings.own_values import (
    behind_proxy,
    defaults_of,
    is_tensor,
    own_values,
    slot_values,
    slots_of,
)
from executor.surroundings.places import Attributes, Contents, Held, Place, Variable
from executor.surroundings.reads import is_library, is_ours, may_read_any, modules_imported, names_read
from executor.surroundings.streams import NumpyStream, PythonStream, global_stream_of, stream_of
from executor.trees import version_of

MOST_VALUES = 2_000
"""Objects, functions and containers that are looked into; tensors and plain values are quick."""
MOST_BESIDE = 500
"""Of those in private lists, which count for nothing."""
DEEPEST = 40
"""Of them in one another."""

_ALL_ENTRIES = frozenset({"items", "values"})
"""Lines with one of these may read entries of dictionaries that they do not name."""
_NUMBERS = frozenset({bool, int, float, complex})
_NAMESPACES = frozenset({"SimpleNamespace", "Namespace"})
"""Classes of the standard library whose objects are nothing but their attributes."""
_PROTOCOLS = ("call", "getitem", "getattr", "iter", "next", "len", "contains", "enter", "exit")
_CONVERSIONS = ("bool", "int", "index")
_OPERATORS = ("add", "sub", "mul", "matmul", "truediv", "radd", "rsub", "rmul", "rmatmul", "rtruediv")
_CALLED = frozenset(f"__{name}__" for name in (*_PROTOCOLS, *_CONVERSIONS, *_OPERATORS))
"""Methods that lines call without naming them."""


class SeenValue(NamedTuple):
    """What counts of one value that a step sees."""

    name: str
    counts: Hashable


class SeenTensor(NamedTuple):
    """A tensor that a step sees; it lives no longer for being seen."""

    name: str
    tensor: ref[Tensor]
    version: int
    """When it was seen."""
    place: Place | None = None
    """Where it was found: None in a list or a tuple."""


class Look:
    """One look around, by lines that read at least `names`."""

    def __init__(self, names: frozenset[str] = frozenset(), most_values: int = MOST_VALUES) -> None:
        self.names = names
        self.reads: frozenset[str] = frozenset()
        """Names in the lines that were met."""
        self.found: list[SeenValue] = []
        """What counts, in the order in which it was met."""
        self.modules: dict[int, nn.Module] = {}
        """Modules that were met, by identity."""
        self.generators: dict[int, torch.Generator] = {}
        self.streams: dict[int, PythonStream | NumpyStream] = {}
        """Random streams of Python and numpy."""
        self.plain: list[tuple[str, Any]] = []
        """Plain values outside of lists, as they are."""
        self.tensors: list[SeenTensor] = []
        """Those that were met, outside of private lists."""
        self.held: list[Held] = []
        """What was found in places that it can be put back to."""
        self.lists: list[Contents] = []
        self.arrays: list[tuple[str, Any]] = []
        """Of numpy."""
        self.differentiable: set[int] = set()
        """Identities of tensors that need a gradient."""
        self.private: list[tuple[str, list[Any]]] = []
        """Private lists, which do not count, and may lead to modules and random streams all the same."""
        self._most_values = most_values
        self._met: dict[int, int] = {}
        self._depth = 0

    def at(self, name: str, value: Any, place: Place | None = None) -> None:
        """Take in a value, and what it leads to; `place` is where it was found."""
        if place is not None:
            self.held.append(Held.now(place, value))
        value = behind_proxy(value)
        kind = type(value)
        if kind in PLAIN:
            self.plain.append((name, value))
            self._add(name, plain_likeness(value))
        elif isinstance(value, Tensor):
            self._add(name, self._of_tensor(name, value, place))
        elif isinstance(value, nn.Module):
            self._add(name, self._of_module(name, value))
        elif isinstance(value, torch.Generator):
            self.generators[id(value)] = value
            self._add(name, identity_likeness(value))
        elif id(value) in self._met:
            self._add(name, ("again", self._met[id(value)]))
        elif (stream := stream_of(value)) is not None:
            self.streams[id(value)] = stream
            self._add(name, identity_likeness(value))
        elif len(self._met) >= self._most_values or self._depth >= DEEPEST:
            self._add(name, Unlike())
        else:
            self._met[id(value)] = len(self._met)
            self._depth += 1
            self._look_into(name, value)
            self._depth -= 1

    def at_part(self, part: nn.Module) -> None:
        """Take in what the lines of a module read of it beside its plain values, and its random streams."""
        own = (each for each in vars(part).values() if issubclass(type(each), torch.Generator))
        self.generators.update((id(each), each) for each in own)
        if is_library(type(part).__module__):
            self._constants(part)
        elif id(part) not in self._met:
            self._met[id(part)] = len(self._met)
            name = type(part).__name__
            values = {key: each for key, each in vars(part).items() if type(each) not in PLAIN}
            self._attributes(name, values, vars(part))
            plain = ((key, each) for key, each in vars(part).items() if key not in values)
            self.held += [Held.now((vars(part), key), each) for key, each in plain if key != "training"]
            self._methods(name, type(part), also=frozenset({"forward"}))

    def _constants(self, part: nn.Module) -> None:
        """Tensors that somebody hung on a module of torch's, and lines name."""
        for key in sorted(self.names & vars(part).keys()):
            value = vars(part)[key]
            if is_tensor(value) and not value.requires_grad:
                self.at(f"{type(part).__name__}.{key}", value, (vars(part), key))

    def at_private(self, name: str, values: list[Any]) -> None:
        """Take in the first parts of a list whose numbers and tensors are of no interest."""
        for value in islice(values, self._most_values):
            if type(value) not in PLAIN and not is_tensor(value):
                self.at(f"{name}[…]", value)

    def _add(self, name: str, counts: Hashable) -> None:
        self.found.append(SeenValue(name, counts))

    def _of_tensor(self, name: str, tensor: Tensor, place: Place | None = None) -> Hashable:
        if tensor.requires_grad:
            self.differentiable.add(id(tensor))
        self.tensors.append(SeenTensor(name, ref(tensor), version_of(tensor), place))
        return tensor_likeness(tensor)

    def _of_module(self, name: str, module: nn.Module) -> Hashable:
        self.modules[id(module)] = module
        return Same(lasting(module))

    def _look_into(self, name: str, value: Any) -> None:
        if isinstance(value, FunctionType):
            self._function(name, value)
        elif isinstance(value, MethodType):
            self.at(name, value.__func__)
            self.at("self", value.__self__)
        elif isinstance(value, functools.partial):
            self.at(name, value.func)
            for index, part in enumerate(value.args):
                self.at(f"argument {index} of {name}", part)
            for key, part in value.keywords.items():
                self.at(key, part)
        elif isinstance(value, dict | Mapping):
            self._mapping(name, value)
        elif isinstance(value, tuple):
            self._tuple(name, value)
        elif isinstance(value, list | set | frozenset | deque):
            if type(value) is list:
                self.lists.append(Contents.now(value))
            self._add(name, (type(value), self._kinds(name, value)))
        elif isinstance(value, ModuleType):
            self._namespace(name, value)
        elif isinstance(value, type):
            self._class(name, value)
        else:
            self._object(name, value)

    def _namespace(self, name: str, module: ModuleType) -> None:
        drawn_from = global_stream_of(module, draws="random" in self.names)
        if drawn_from is not None:
            self.at(name, drawn_from)
        elif not is_library(module.__name__):
            self._attributes(name, vars(module))

    def _function(self, name: str, function: FunctionType) -> None:
        code = function.__code__
        self._add(name, code)
        for inner, value in defaults_of(function):
            self.at(inner, value)
        for inner, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # a name that is bound later
                continue
            self.at(inner, value, (Variable(cell), inner))
        if is_library(function.__module__):
            return
        reads, around = names_read(code), function.__globals__
        if not reads <= self.reads:
            self.reads |= reads
            self.names |= reads
        for inner in sorted(reads & around.keys()):
            self.at(inner, around[inner], (around, inner))
        for imported in sorted(modules_imported(code) & sys.modules.keys()):
            self.at(imported, sys.modules[imported])

    def _mapping(self, name: str, values: Mapping[Any, Any]) -> None:
        kinds = set(map(type, values.values())) | set(map(type, values))
        if kinds <= PLAIN:
            if len(values) > LONG:
                for parts in (values, values.values()):
                    self._add(name, plain_values_likeness(type(values), tuple(parts)))
                return
            are_any = not _ALL_ENTRIES.isdisjoint(self.names) or self.names.isdisjoint(values)
            for key, value in values.items():  # lines that name no key look entries up by another value
                if are_any or not isinstance(key, str) or key in self.names:
                    self.plain.append((f"{name}[{key!r}]", value))
                self._add(f"{name}[{key!r}]", (key, plain_likeness(value)))
                if type(values) is dict:
                    self.held.append(Held.now((values, key), value))
        else:
            for key, value in values.items():
                self.at(f"a key of {name}", key)
                place = (values, key) if type(values) is dict else None
                self.at(f"{name}[{key if type(key) in PLAIN else '…'!r}]", value, place)
        self._add(name, (type(values), len(values)))

    def _tuple(self, name: str, values: tuple[Any, ...]) -> None:
        if set(map(type, values)) <= PLAIN:
            self._add(name, plain_values_likeness(type(values), values))
            return
        self._add(name, (type(values), len(values)))
        for index, value in enumerate(values):
            self.at(f"{name}[{index}]", value)

    def _kinds(self, name: str, values: Iterable[Any]) -> Hashable:
        """Of a list's parts: numbers count by type, tensors by their number, others by what they are."""
        types = set(map(type, values))
        kinds: set[Hashable] = set(types & _NUMBERS)
        tensors: Counter[Hashable] = Counter()
        outer, plain = self.found, self.plain
        self.plain = []
        for value in values if types - _NUMBERS else ():
            if is_tensor(value):
                tensors[self._of_tensor(f"{name}[…]", value)] += 1
            elif type(value) not in _NUMBERS:
                self.found = []
                self.at(f"{name}[…]", value)
                kinds.add(tuple(self.found))
        self.found, self.plain = outer, plain
        return frozenset(kinds), frozenset(tensors.items())

    def _object(self, name: str, value: Any) -> None:
        kind = type(value)
        own = own_values(value)
        if isinstance(value, Integral | Real):  # numpy's, say
            self._add(name, plain_likeness(int(value) if isinstance(value, Integral) else float(value)))
        elif isinstance(value, ContextVar):
            self.at(name, value.get(None))
        elif isinstance(value, Enum):
            self._add(name, (kind, value.name))
        elif "numpy" in sys.modules and isinstance(value, sys.modules["numpy"].ndarray):
            self.arrays.append((name, value))
            self._add(name, (kind, value.shape, value.dtype))
        elif isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
            self._add(name, value.__name__)
            self.at(name, value.__self__)
        elif isinstance(own, dict) or slots_of(kind):
            self._instance(name, value, own or {})
        else:
            self._add(name, identity_likeness(value))

    def _instance(self, name: str, value: Any, own: Mapping[str, Any]) -> None:
        """The lines of libraries are not looked at: their objects count by identity, too, and ours by all
        their attributes.
        """
        kind: Any = type(value)
        self._add(name, kind)
        slots = slot_values(value)
        if not (own or slots or callable(value)):  # a marker, which lines compare with others
            self._add(name, identity_likeness(value))
        if "__wrapped__" in own:  # by functools.cache, say
            self.at(name, own["__wrapped__"])
        everything = is_ours(kind.__module__) or may_read_any(self.names)
        self._attributes(name, own, own, all_of_them=everything)
        self._attributes(name, slots, Attributes(value), all_of_them=everything)
        if not is_library(kind.__module__):
            self._methods(name, kind)
        elif not is_ours(kind.__module__) and kind.__name__ not in _NAMESPACES:
            self._add(name, identity_likeness(value))

    def _class(self, name: str, value: type) -> None:
        self._add(name, value)
        if not is_library(value.__module__):
            self._methods(name, value)

    def _attributes(
        self,
        name: str,
        values: Mapping[str, Any],
        owner: Mapping[str, Any] | Attributes | None = None,
        *,
        all_of_them: bool = False,
    ) -> None:
        """Those that the lines read, which `owner` holds. Private numbers and lists do not count: objects
        count, and collect, in them.
        """
        for inner in sorted(values if all_of_them else values.keys() & self.names):
            value = values[inner]
            if inner.startswith("_") and issubclass(type(value), list):
                self.private.append((f"{name}.{inner}", value))
                self.lists.append(Contents.now(value))
                continue
            place = (owner, inner) if isinstance(owner, dict | Attributes) else None
            if not (inner.startswith("_") and issubclass(type(value), int | float)):
                self.at(f"{name}.{inner}", value, place)
            elif place is not None:
                self.held.append(Held.now(place, value))

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
                elif isinstance(value, functools.cached_property):
                    value = value.func
                place = None if hasattr(type(value), "__get__") else (Attributes(each), inner)
                self.at(f"{name}.{inner}", getattr(value, "__func__", value), place)
