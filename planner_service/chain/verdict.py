"""What a replay found: figures of the actions that were legal, and the first one that was not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from planner_service.chain.tiers_actions import TieredAction, describe

StagesRun = tuple[int, int, int, int]
"""Stages advanced, taped, reversed and, among these, undone."""


@dataclass(frozen=True)
class IllegalAction:
    """Where a schedule breaks the rules. `index` is len(schedule) when it ends too early."""

    index: int
    action: TieredAction | None
    reason: str

    def __str__(self) -> str:
        what = "the end" if self.action is None else describe(self.action)
        return f"action {self.index} ({what}): {self.reason}"


@dataclass(frozen=True)
class Verdict:
    """What a replay found. Costs and counts cover the actions before `illegal`, if there is one."""

    makespan: float
    """Sum of the costs, in the chain's cost unit."""
    peak_bytes: int
    """Most bytes live at any time."""
    advance_count: int
    """Stages run without a tape, repetitions included."""
    tape_count: int
    """Stages run with a tape."""
    backward_count: int
    """Stages reversed, those that were undone included."""
    undo_count: int
    """Stages undone."""
    action_count: int
    """Records in the schedule."""
    illegal: IllegalAction | None

    @property
    def legal(self) -> bool:
        """True when every action was allowed and every stage was reversed."""
        return self.illegal is None


class IllegalSchedule(Exception):
    """Raised by `moments` at the first illegal action; `simulate` turns it into a Verdict."""

    def __init__(self, illegal: IllegalAction) -> None:
        self.illegal = illegal
        super().__init__(str(illegal))


class LiveMoment(Protocol):
    """An action of a replay, with a clock or without."""

    @property
    def peak_bytes(self) -> int:
        """Most bytes live while the action ran."""


SomeMoment = TypeVar("SomeMoment", bound=LiveMoment)


class Tally:
    """What every verdict says of the actions before the first illegal one.

    A replay begins with `live_bytes`, and `stages_run` is what it has run so far.
    """

    def __init__(self, live_bytes: int, stages_run: Callable[[], StagesRun]) -> None:
        self._count_stages = stages_run
        self._peak_bytes = live_bytes
        self._action_count = 0
        self._stages_run = stages_run()
        self._illegal: IllegalAction | None = None

    def counted(self, moments: Iterable[SomeMoment]) -> Iterator[SomeMoment]:
        """The moments as they pass; they end where IllegalSchedule is raised."""
        try:
            for moment in moments:
                self._peak_bytes = max(self._peak_bytes, moment.peak_bytes)
                self._action_count += 1
                self._stages_run = self._count_stages()
                yield moment
        except IllegalSchedule as error:
            self._illegal = error.illegal

    def verdict(self, makespan: float) -> Verdict:
        """The verdict once all moments have passed."""
        advance_count, tape_count, backward_count, undo_count = self._stages_run
        return Verdict(
            makespan=makespan,
            peak_bytes=self._peak_bytes,
            advance_count=advance_count,
            tape_count=tape_count,
            backward_count=backward_count,
            undo_count=undo_count,
            action_count=self._action_count,
            illegal=self._illegal,
        )
