"""The judge of schedules with storage tiers: the replay of `simulator.py` with clocks.

The compute stream takes the actions in order. Every tier has two more streams, one per direction; a
transfer starts when it is issued and the stream is free, and whoever needs its result waits. A tier
that does not overlap makes the compute stream wait for each of its transfers.

Peaks follow from the order of the actions alone (see `tiers_actions.py`); the clocks decide only the
makespan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from planner_service.chain.actions import Action, Advance, Archive, Free, Tape, Undo
from planner_service.chain.chain import Chain
from planner_service.chain.simulator import Illegal, Replay
from planner_service.chain.tiers import Tier, check_tiers
from planner_service.chain.tiers_actions import Discard, Fetch, Move, Store, TieredAction
from planner_service.chain.verdict import IllegalAction, IllegalSchedule, Tally, Verdict


class TimedMoment(NamedTuple):
    """One action of a timed replay. Times are in the chain's cost unit, from the start of the schedule."""

    position: int
    """Position in the schedule, from 0."""
    action: TieredAction
    cost: float
    """What its stages cost; the rest of the time until `ended_at` was spent waiting."""
    started_at: float
    """When the compute stream reached the action: it may wait first."""
    ended_at: float
    """When the compute stream went on."""
    transfer_started_at: float
    """When the copy of a `store` or `fetch` began; `started_at` for every other action."""
    transfer_ended_at: float
    live_before_bytes: int
    peak_bytes: int
    """Most device bytes live while the action ran."""
    live_after_bytes: int
    stored_bytes: tuple[int, ...]
    """Bytes held by each tier afterwards."""


@dataclass(frozen=True)
class TierUse:
    """What a schedule did with one tier."""

    name: str
    peak_bytes: int
    """Most bytes of states held at once; of host memory, the pinned bytes."""
    written_bytes: int
    read_bytes: int
    write_count: int
    read_count: int
    write_seconds: float
    """How long the write stream was busy, in the chain's cost unit."""
    read_seconds: float


@dataclass(frozen=True)
class TieredVerdict(Verdict):
    """What a timed replay found; `makespan` ends with the last action or transfer."""

    compute_seconds: float
    """Sum of the costs of the stages, in the chain's cost unit: the makespan less `stall_seconds`."""
    tiers: tuple[TierUse, ...]
    """One entry per tier, in the order given."""

    @property
    def stall_seconds(self) -> float:
        """How long the compute stream waited for transfers."""
        return self.makespan - self.compute_seconds


def simulate_tiers(
    chain: Chain,
    tiers: Sequence[Tier],
    schedule: Iterable[TieredAction],
    budget_bytes: int | None = None,
) -> TieredVerdict:
    """Replay `schedule` on `chain` with `tiers` and clocks.

    An action that would exceed `budget_bytes` on the device or a tier's budget is illegal too.
    Raises InvalidChain when two tiers have one name. O(1) per record and equal run of stages.
    """
    replay = _TieredReplay(chain, tiers, budget_bytes)
    tally = Tally(replay.live_bytes, replay.stages_run)
    makespan: float = 0
    compute_seconds: float = 0
    for moment in tally.counted(_timed_moments(replay, schedule)):
        makespan = max(makespan, moment.ended_at, moment.transfer_ended_at)
        compute_seconds += moment.cost
    return TieredVerdict(
        **vars(tally.verdict(makespan)),
        compute_seconds=compute_seconds,
        tiers=tuple(shelf.use() for shelf in replay.shelves.values()),
    )


def timed_moments(
    chain: Chain,
    tiers: Sequence[Tier],
    schedule: Iterable[TieredAction],
    budget_bytes: int | None = None,
) -> Iterator[TimedMoment]:
    """The timed replay as a stream, for timelines. Raises IllegalSchedule at the first illegal action."""
    return _timed_moments(_TieredReplay(chain, tiers, budget_bytes), schedule)


def _timed_moments(replay: _TieredReplay, schedule: Iterable[TieredAction]) -> Iterator[TimedMoment]:
    position = -1
    for position, action in enumerate(schedule):
        before, started_at = replay.live_bytes, replay.clock
        try:
            cost, peak, transfer = replay.step(action)
        except Illegal as error:
            raise IllegalSchedule(IllegalAction(position, action, str(error))) from None
        copied = transfer or _Transfer(started_at, started_at)
        stored = tuple(shelf.live_bytes for shelf in replay.shelves.values())
        yield TimedMoment(
            position, action, cost, started_at, replay.clock, *copied, before, peak, replay.live_bytes, stored
        )
    if replay.gradient_at > 0:
        reason = f"the schedule ends with stages 1..{replay.gradient_at} not reversed"
        raise IllegalSchedule(IllegalAction(position + 1, None, reason))


class _Transfer(NamedTuple):
    started_at: float
    ended_at: float


class _Stream:
    """One copy stream: transfers in the order of issue, one at a time."""

    def __init__(self) -> None:
        self.free_at: float = 0
        self.busy_seconds: float = 0
        self.bytes = 0
        self.count = 0

    def copy(self, size_bytes: int, seconds: float, not_before: float) -> _Transfer:
        started_at = max(not_before, self.free_at)
        self.free_at = started_at + seconds
        self.busy_seconds += seconds
        self.bytes += size_bytes
        self.count += 1
        return _Transfer(started_at, self.free_at)


class _Shelf:
    """What one tier holds, and its two streams."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.written_at: dict[int, float] = {}  # when the copy of a state is complete
        self.idle_at: dict[int, float] = {}  # when nothing reads or writes that copy any more
        self.writes = _Stream()
        self.reads = _Stream()
        self.live_bytes = 0
        self.peak_bytes = 0

    def use(self) -> TierUse:
        writes, reads = self.writes, self.reads
        return TierUse(
            name=self.tier.name,
            peak_bytes=self.peak_bytes,
            written_bytes=writes.bytes,
            read_bytes=reads.bytes,
            write_count=writes.count,
            read_count=reads.count,
            write_seconds=writes.busy_seconds,
            read_seconds=reads.busy_seconds,
        )


class _TieredReplay(Replay):
    """The machine of `Replay` with a clock, and shelves beside the device."""

    def __init__(self, chain: Chain, tiers: Sequence[Tier], budget_bytes: int | None) -> None:
        check_tiers(tiers)
        super().__init__(chain)
        self._budget_bytes = budget_bytes
        self.shelves = {tier.name: _Shelf(tier) for tier in tiers}
        self.clock: float = 0
        self._ready_at: dict[int, float] = {}  # fetched states: when the device's copy is complete
        self._released_at: dict[int, float] = {}  # stored states: when no write reads it any more

    def step(self, action: TieredAction) -> tuple[float, int, _Transfer | None]:
        """Apply the action and move the clock; return its cost, the most device bytes live while it
        ran, and the copy that it started.
        """
        cost: float = 0
        peak = self.live_bytes
        transfer = None
        if isinstance(action, Store):
            transfer = self._store(action.state, self._shelf(action.tier))
        elif isinstance(action, Fetch):
            transfer = self._fetch(action.state, self._shelf(action.tier))
            peak = self.live_bytes
        elif isinstance(action, Discard):
            self._discard(action.state, self._shelf(action.tier))
        elif isinstance(action, Move):
            cost, peak = self._move(action.first, action.last)
        else:
            cost, peak = self._compute(action)
        self._require_room(peak)
        return cost, peak, transfer

    def _require_room(self, peak_bytes: int) -> None:
        budget_bytes = self._budget_bytes
        if budget_bytes is not None and peak_bytes > budget_bytes:
            over_bytes = peak_bytes - budget_bytes
            raise Illegal(f"{peak_bytes} bytes would be live, {over_bytes} over the budget of {budget_bytes}")

    def _compute(self, action: Action) -> tuple[float, int]:
        if isinstance(action, Advance | Tape | Archive):
            self._wait_until(self._ready_at.get(action.first - 1, 0))
        elif isinstance(action, Undo):
            self._wait_until(self._ready_at.get(action.first, 0))
        cost, peak = self.run(action)
        self.clock += cost
        if isinstance(action, Free):
            self._wait_for_copies_of(action.state)
        elif isinstance(action, Undo):
            self._wait_for_copies_of(action.first)
        return cost, peak

    def _move(self, first: int, last: int) -> tuple[float, int]:
        self._require_range(first, last)
        self._require_absent(last)
        if first - 1 not in self._checkpoints:
            raise Illegal(f"x_{first - 1} is not a checkpoint that could go")
        self._wait_until(self._ready_at.get(first - 1, 0))
        cost, need_bytes = self._sweep(first, first, 0)
        peak = self.live_bytes + need_bytes
        self.clock += cost
        self._free(first - 1)
        self._wait_for_copies_of(first - 1)
        if last > first:
            rest_cost, need_bytes = self._sweep(first + 1, last, self._chain.state_bytes(first))
            peak = max(peak, self.live_bytes + need_bytes)
            self.clock += rest_cost
            cost += rest_cost
        self.live_bytes += self._chain.state_bytes(last)
        self._checkpoints.add(last)
        self._advance_count += last - first + 1
        return cost, peak

    def _store(self, state: int, shelf: _Shelf) -> _Transfer:
        if state not in self._checkpoints:
            raise Illegal(f"x_{state} is not a checkpoint")
        if state in shelf.written_at:
            raise Illegal(f"{shelf.tier.name} holds x_{state} already")
        size_bytes = self._chain.state_bytes(state)
        if shelf.live_bytes + size_bytes > shelf.tier.budget_bytes:
            over_bytes = shelf.live_bytes + size_bytes - shelf.tier.budget_bytes
            raise Illegal(f"{shelf.tier.name} would hold {over_bytes} bytes more than its budget")
        shelf.live_bytes += size_bytes
        shelf.peak_bytes = max(shelf.peak_bytes, shelf.live_bytes)
        begin = max(self.clock, self._ready_at.get(state, 0))
        transfer = shelf.writes.copy(size_bytes, shelf.tier.write_seconds(size_bytes), begin)
        shelf.written_at[state] = shelf.idle_at[state] = transfer.ended_at
        self._released_at[state] = max(self._released_at.get(state, 0), transfer.ended_at)
        self._block_on(shelf.tier, transfer)
        return transfer

    def _fetch(self, state: int, shelf: _Shelf) -> _Transfer:
        if state not in shelf.written_at:
            raise Illegal(f"{shelf.tier.name} does not hold x_{state}")
        self._require_absent(state)
        size_bytes = self._chain.state_bytes(state)
        self._require_room(self.live_bytes + size_bytes)
        self._checkpoints.add(state)
        self.live_bytes += size_bytes
        begin = max(self.clock, shelf.written_at[state])
        transfer = shelf.reads.copy(size_bytes, shelf.tier.read_seconds(size_bytes), begin)
        shelf.idle_at[state] = max(shelf.idle_at[state], transfer.ended_at)
        self._ready_at[state] = transfer.ended_at
        self._block_on(shelf.tier, transfer)
        return transfer

    def _discard(self, state: int, shelf: _Shelf) -> None:
        if state not in shelf.written_at:
            raise Illegal(f"{shelf.tier.name} does not hold x_{state}")
        self._wait_until(shelf.idle_at.pop(state))
        del shelf.written_at[state]
        shelf.live_bytes -= self._chain.state_bytes(state)

    def _shelf(self, tier: str) -> _Shelf:
        shelf = self.shelves.get(tier)
        if shelf is None:
            raise Illegal(f"there is no tier {tier!r}, only {sorted(self.shelves)}")
        return shelf

    def _wait_until(self, moment: float) -> None:
        self.clock = max(self.clock, moment)

    def _wait_for_copies_of(self, state: int) -> None:
        """Its device buffer goes: no copy may still read or fill it."""
        self._wait_until(max(self._ready_at.pop(state, 0), self._released_at.pop(state, 0)))

    def _block_on(self, tier: Tier, transfer: _Transfer) -> None:
        if not tier.overlapped:
            self._wait_until(transfer.ended_at)
