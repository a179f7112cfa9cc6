"""Places that hold something else for a while: a module's parameters and buffers, variables of closures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from executor.surroundings.places import ABSENT, Place


@contextmanager
def put_back(places: Iterable[Place]) -> Iterator[None]:
    """After the context the places hold what they hold now; what is absent is absent again."""
    before = [
        (slots, name, slots[name] if name in slots else ABSENT)  # noqa: SIM401 - scripted modules have no get
        for slots, name in places
    ]
    try:
        yield
    finally:
        for slots, name, was in before:
            if was is ABSENT:
                slots.pop(name, None)
            else:
                slots[name] = was
