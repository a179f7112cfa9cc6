"""Places that hold something else for a while: a module's parameters and buffers, variables of closures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from executor.surroundings.places import ABSENT, Place, are_all_same


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


@contextmanager
def holding(held: Iterable[tuple[Place, Any]]) -> Iterator[None]:
    """Within the context places hold the values beside them; what is written there meanwhile stays."""
    others = [(place, then, place[0].get(place[1], ABSENT)) for place, then in held]
    others = [each for each in others if each[1] is not each[2]]
    for (slots, name), then, _ in others:
        slots[name] = then
    try:
        yield
    finally:
        for (slots, name), then, now in others:
            if slots.get(name, ABSENT) is not then:
                continue
            if now is ABSENT:
                slots.pop(name, None)
            else:
                slots[name] = now


@contextmanager
def with_contents(lists: Sequence[tuple[list[Any], list[Any]]]) -> Iterator[None]:
    """Within the context lists have the contents beside them; what is added meanwhile stays."""
    others = [(each, then, [*each]) for each, then in lists if not are_all_same(each, then)]
    for each, then, _ in others:
        each[:] = then
    try:
        yield
    finally:
        for each, then, now in others:
            each[:] = [*now, *each[len(then) :]]
