"""What a key may be good for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """One right. None contains another, except that `admin` contains all."""

    READ = "read"
    """Plans, jobs with events and logs, nodes, measurements, profiles, metrics."""
    PLAN = "plan"
    """Have plans, frontiers, comparisons, simulations and placements computed."""
    SUBMIT = "submit"
    """Submit and cancel jobs."""
    WORKER = "worker"
    """Register nodes, claim jobs, send profiles and measurements."""
    ADMIN = "admin"
    """Everything, and the audit log."""


class UnknownScope(ValueError):
    """A word that is no scope."""

    def __init__(self, word: str) -> None:
        self.word = word
        super().__init__(f"unknown scope {word!r}: there are {', '.join(Scope)}")


def scopes_of(words: Iterable[str]) -> frozenset[Scope]:
    """The scopes with these names. Raises UnknownScope."""
    found = set()
    for word in words:
        try:
            found.add(Scope(word))
        except ValueError:
            raise UnknownScope(word) from None
    return frozenset(found)
