"""A replay in pure Python takes minutes on the longest schedules: it must stop when somebody cancels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from planner_service.solvers.solution import Cancellation

ACTIONS_PER_POLL = 8
"""An advance over a chain whose stages all differ takes a tenth of a second; a poll next to nothing."""

Item = TypeVar("Item")


def polled(actions: Iterable[Item], cancellation: Cancellation) -> Iterator[Item]:
    """`actions`, until somebody cancels: Cancelled is raised soon after, in the middle of their replay."""
    for position, action in enumerate(actions):
        if position % ACTIONS_PER_POLL == 0:
            cancellation.check()
        yield action
