"""Which names a function's lines read: variables, attributes, and the strings that may be keys; and which
modules they import.
"""

from __future__ import annotations

import dis
import sys
from functools import cache, lru_cache
from types import CodeType

MOST_REMEMBERED = 4096
_ASKS_FOR_ANY = frozenset({"getattr", "vars", "__dict__", "__getattribute__", "asdict", "eval", "exec"})
"""Lines with one of these may read attributes that they do not name."""
_OURS = frozenset({"executor", "planner_service"})
_LIBRARIES = _OURS | {"torch", "numpy"} | sys.stdlib_module_names

_remembered: dict[int, tuple[CodeType, frozenset[str]]] = {}


def names_read(code: CodeType) -> frozenset[str]:
    """Names and strings in the lines of `code` and of the functions defined in it."""
    found = _remembered.get(id(code))
    if found is None:
        if len(_remembered) >= MOST_REMEMBERED:
            _remembered.clear()
        found = _remembered[id(code)] = (code, _names_read(code))
    return found[1]


def _names_read(code: CodeType) -> frozenset[str]:
    names = set(filter(str.isidentifier, code.co_names))  # pytest writes others into lines with `assert`
    for constant in code.co_consts:
        if isinstance(constant, str):
            names.add(constant)
        elif isinstance(constant, CodeType):
            names |= _names_read(constant)
    return frozenset(names)


@lru_cache(MOST_REMEMBERED)
def modules_imported(code: CodeType) -> frozenset[str]:
    """Names of the modules that are imported in the lines of `code` and of the functions defined in it."""
    found = {str(each.argval) for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME"}
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(found.union(*map(modules_imported, inner)))


def may_read_any(names: frozenset[str]) -> bool:
    """Whether lines that read `names` may read any attribute."""
    return not names.isdisjoint(_ASKS_FOR_ANY)


@cache
def is_ours(module_name: str | None) -> bool:
    """Whether a module is one of this package's."""
    return (module_name or "").partition(".")[0] in _OURS


@cache
def is_library(module_name: str | None) -> bool:
    """Whether a module's functions are Python's, torch's, numpy's or our own, which no caller changes."""
    return (module_name or "").partition(".")[0] in _LIBRARIES
