"""How many free bytes a node must have to be given a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "cuda"]

FREE = "free"


@dataclass(frozen=True, kw_only=True)
class DeviceNeeds:
    """The planner's estimate for one kind of device, in bytes."""

    held_bytes: int
    """What training holds beside the budget: weights, optimizer state, inputs."""
    least_bytes: int
    """Held bytes and the leanest plan."""
    needed_bytes: int
    """What the job's budget, as it now is, asks of the node."""

    def with_budget(self, budget_bytes: int) -> DeviceNeeds:
        """The same job under another budget."""
        return DeviceNeeds(
            held_bytes=self.held_bytes,
            least_bytes=self.least_bytes,
            needed_bytes=self.held_bytes + budget_bytes,
        )

    def granted_bytes(self, budget: int | str, free_bytes: int) -> int:
        """The budget in bytes on a node with so much free memory, as far as can be told from here."""
        if isinstance(budget, int):
            return budget
        return max(1, (free_bytes if budget == FREE else self.needed_bytes) - self.held_bytes)


@dataclass(frozen=True, kw_only=True)
class JobNeeds:
    """The estimates for both kinds of device."""

    cpu: DeviceNeeds
    cuda: DeviceNeeds

    def on(self, kind: DeviceKind) -> DeviceNeeds:
        """The estimate for one kind of device."""
        return self.cuda if kind == "cuda" else self.cpu

    def with_budget(self, budget_bytes: int) -> JobNeeds:
        """The same job under another budget."""
        return JobNeeds(cpu=self.cpu.with_budget(budget_bytes), cuda=self.cuda.with_budget(budget_bytes))


def tightened_bytes(budget_bytes: int, excess_bytes: int | None) -> int:
    """The budget after an attempt under `budget_bytes` ran out of memory; 0 or less when none is left.

    It gives way by what was measured, and by a sixteenth where that is more, so that a few attempts
    get somewhere even when nobody could measure.
    """
    least_step = -(-budget_bytes // 16)
    return budget_bytes - max(excess_bytes or 0, least_step)
