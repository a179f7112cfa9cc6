"""The rules of schedules with storage tiers once more: naive, sharing no code with the judge.

Every transfer ever issued stays in one list; who has to wait for what is looked up there anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from planner_service.chain import Advance, Backward, Chain, Free, Tape
from planner_service.chain.tiers import Tier
from planner_service.chain.tiers_actions import Discard, Fetch, Move, Store, TieredAction
from tests.oracles.machine import Machine, Refused


@dataclass
class Transfer:
    """One copy between the device and a tier."""

    kind: str
    tier: str
    state: int
    begin: float
    end: float
    touches_device: bool = True
    """Until the state's device buffer goes."""
    touches_tier: bool = True


@dataclass
class TieredMachine:
    """A `Machine` with clocks and shelves."""

    machine: Machine
    tiers: dict[str, Tier]
    held: dict[str, dict[int, int]]
    clock: float = 0
    peak_bytes: int = 0
    transfers: list[Transfer] = field(default_factory=list)

    @classmethod
    def of(cls, chain: Chain, tiers: Sequence[Tier]) -> TieredMachine:
        """The machine before the first action."""
        machine = Machine(chain)
        named = {tier.name: tier for tier in tiers}
        return cls(machine, named, {name: {} for name in named}, peak_bytes=machine.live_bytes())

    def run(self, action: TieredAction) -> None:
        """Apply the action or raise Refused."""
        if isinstance(action, Move):
            self._move(action)
        elif isinstance(action, Store | Fetch | Discard):
            if action.tier not in self.tiers:
                raise Refused
            {Store: self._store, Fetch: self._fetch, Discard: self._discard}[type(action)](action)
        else:
            self._ordinary(action)

    def _ordinary(self, action: Advance | Tape | Backward | Free) -> None:
        if isinstance(action, Advance | Tape):
            self._wait(self._reads_of(action.first - 1))
        for cost, live in list(self.machine.singles(action)):
            self.clock += cost
            self.peak_bytes = max(self.peak_bytes, live)
        if isinstance(action, Free):
            self._drop(action.state)

    def _move(self, action: Move) -> None:
        """Single stages, each freeing the state that it read."""
        if action.last in self.machine.checkpoints or not 1 <= action.first <= action.last:
            raise Refused
        if action.first - 1 not in self.machine.checkpoints or action.last > len(self.machine.stages):
            raise Refused
        passed = {state: self.machine.checkpoints.pop(state) for state in self._passed(action)}
        for index in range(action.first, action.last + 1):
            # A checkpoint on the way is another buffer of the same state.
            extra = sum(passed.values())
            self._wait(self._reads_of(index - 1))
            for cost, live in list(self.machine.singles(Advance(index, index))):
                self.clock += cost
                self.peak_bytes = max(self.peak_bytes, live + extra)
            list(self.machine.singles(Free(index - 1)))
            if index == action.first:
                self._drop(index - 1)
        self.machine.checkpoints.update(passed)

    def _passed(self, action: Move) -> list[int]:
        return [s for s in self.machine.checkpoints if action.first <= s < action.last]

    def _store(self, action: Store) -> None:
        tier, shelf, state = self.tiers[action.tier], self.held[action.tier], action.state
        size = self.machine.checkpoints.get(state)
        if size is None or state in shelf or sum(shelf.values()) + size > tier.budget_bytes:
            raise Refused
        shelf[state] = size
        seconds = tier.write_latency_seconds + size * tier.write_seconds_per_byte
        self._copy("write", tier, state, seconds, self._reads_of(state))

    def _fetch(self, action: Fetch) -> None:
        tier, shelf, state = self.tiers[action.tier], self.held[action.tier], action.state
        if state not in shelf or state in self.machine.checkpoints:
            raise Refused
        written = [t.end for t in self.transfers if t.kind == "write" and self._on_shelf(t, tier, state)]
        self.machine.checkpoints[state] = shelf[state]
        self.peak_bytes = max(self.peak_bytes, self.machine.live_bytes())
        seconds = tier.read_latency_seconds + shelf[state] * tier.read_seconds_per_byte
        self._copy("read", tier, state, seconds, written)

    def _discard(self, action: Discard) -> None:
        tier, state = self.tiers[action.tier], action.state
        if state not in self.held[action.tier]:
            raise Refused
        del self.held[action.tier][state]
        for transfer in self.transfers:
            if self._on_shelf(transfer, tier, state):
                self._wait([transfer.end])
                transfer.touches_tier = False

    def _copy(self, kind: str, tier: Tier, state: int, seconds: float, after: list[float]) -> None:
        queue = [t.end for t in self.transfers if (t.kind, t.tier) == (kind, tier.name)]
        begin = max([self.clock, *queue, *after])
        self.transfers.append(Transfer(kind, tier.name, state, begin, begin + seconds))
        if not tier.overlapped:
            self._wait([begin + seconds])

    def _drop(self, state: int) -> None:
        for transfer in self.transfers:
            if transfer.state == state and transfer.touches_device:
                self._wait([transfer.end])
                transfer.touches_device = False

    def _reads_of(self, state: int) -> list[float]:
        return [t.end for t in self.transfers if t.kind == "read" and t.state == state and t.touches_device]

    @staticmethod
    def _on_shelf(transfer: Transfer, tier: Tier, state: int) -> bool:
        return transfer.touches_tier and (transfer.tier, transfer.state) == (tier.name, state)

    def _wait(self, ends: Iterable[float]) -> None:
        self.clock = max([self.clock, *ends])


@dataclass(frozen=True)
class TieredFindings:
    """What the naive replay saw."""

    makespan: float
    peak_bytes: int
    illegal_index: int | None


def judge_tiers(
    chain: Chain, tiers: Sequence[Tier], schedule: Sequence[TieredAction], budget_bytes: int | None = None
) -> TieredFindings:
    """Replay the schedule; stop at the first action that is refused or over budget."""
    machine = TieredMachine.of(chain, tiers)
    seen = (0.0, machine.peak_bytes)
    for index, action in enumerate(schedule):
        try:
            machine.run(action)
        except Refused:
            return TieredFindings(*seen, index)
        if budget_bytes is not None and machine.peak_bytes > budget_bytes:
            return TieredFindings(*seen, index)
        seen = (max([machine.clock, *(t.end for t in machine.transfers)]), machine.peak_bytes)
    return TieredFindings(*seen, None if machine.machine.gradient == 0 else len(schedule))
