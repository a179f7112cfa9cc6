"""Entries of dictionaries that are other ones for a while: a module's parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Place = tuple[dict[Any, Any], Any]
"""A dictionary and a key of it."""

_ABSENT = object()


@contextmanager
def put_back(places: Iterable[Place]) -> Iterator[None]:
    """After the context the places hold what they hold now; what is absent is absent again."""
    before = [
        (slots, name, slots[name] if name in slots else _ABSENT)  # noqa: SIM401 - scripted modules have no get
        for slots, name in places
    ]
    try:
        yield
    finally:
        for slots, name, was in before:
            if was is _ABSENT:
                slots.pop(name, None)
            else:
                slots[name] = was
