"""The judge: replays a schedule action by action under the memory model of DESIGN.md, section 3.

It shares no code with any solver. A plan's makespan, peak and counts *are* what `simulate` returns,
and a stranger's schedule is judged by the same rules: legal, or the first illegal action and why.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from planner_service.chain.actions import Action, Advance, Backward, Tape
from planner_service.chain.chain import Chain
from planner_service.chain.stage import Stage
from planner_service.chain.tiers_actions import TieredAction, describe


class Moment(NamedTuple):
    """One action of a replay, with what it cost and what was live around it."""

    position: int
    """Position in the schedule, from 0."""
    action: Action
    cost: float
    """In the chain's cost unit."""
    live_before_bytes: int
    peak_bytes: int
    """Most bytes live while the action ran."""
    live_after_bytes: int


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


def simulate(chain: Chain, schedule: Iterable[Action], budget_bytes: int | None = None) -> Verdict:
    """Replay `schedule` on `chain`; an action that would exceed `budget_bytes` is illegal too.

    Takes O(1) per record and equal run of stages, and memory for what is stored at once.
    """
    replay = Replay(chain)
    makespan: float = 0
    peak = replay.live_bytes
    count = 0
    stages_run = replay.stages_run()
    illegal = None
    try:
        for moment in _moments(replay, schedule, budget_bytes):
            makespan += moment.cost
            peak = max(peak, moment.peak_bytes)
            count += 1
            stages_run = replay.stages_run()
    except IllegalSchedule as error:
        illegal = error.illegal
    return Verdict(
        makespan=makespan,
        peak_bytes=peak,
        advance_count=stages_run[0],
        tape_count=stages_run[1],
        backward_count=stages_run[2],
        action_count=count,
        illegal=illegal,
    )


def moments(chain: Chain, schedule: Iterable[Action], budget_bytes: int | None = None) -> Iterator[Moment]:
    """The replay as a stream, for timelines. Raises IllegalSchedule at the first illegal action."""
    return _moments(Replay(chain), schedule, budget_bytes)


def _moments(replay: Replay, schedule: Iterable[Action], budget_bytes: int | None) -> Iterator[Moment]:
    index = -1
    for index, action in enumerate(schedule):
        before = replay.live_bytes
        try:
            cost, peak = replay.run(action)
        except Illegal as error:
            raise IllegalSchedule(IllegalAction(index, action, str(error))) from None
        if budget_bytes is not None and peak > budget_bytes:
            reason = f"{peak} bytes would be live, {peak - budget_bytes} over the budget of {budget_bytes}"
            raise IllegalSchedule(IllegalAction(index, action, reason))
        yield Moment(index, action, cost, before, peak, replay.live_bytes)
    if replay.gradient_at > 0:
        reason = f"the schedule ends with stages 1..{replay.gradient_at} not reversed"
        raise IllegalSchedule(IllegalAction(index + 1, None, reason))


class Illegal(Exception):
    """An action breaks a rule; the message says which."""


class Replay:
    """The machine's state: what is stored, what is taped, which gradient is live, how many bytes."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._checkpoints: set[int] = set()
        self._pinned: set[int] = set()  # checkpoints that a live tape refers to
        self._taped_first: list[int] = []  # live tapes as disjoint sorted ranges first..last
        self._taped_last: list[int] = []
        self.gradient_at = chain.length  # the state whose gradient is live
        self.live_bytes = chain.static_bytes + chain.input_bytes + chain.loss_gradient_bytes
        self._advance_count = 0
        self._tape_count = 0
        self._backward_count = 0

    def stages_run(self) -> tuple[int, int, int]:
        """Stages advanced, taped and reversed so far."""
        return self._advance_count, self._tape_count, self._backward_count

    def run(self, action: Action) -> tuple[float, int]:
        """Apply the action; return its cost and the most bytes live while it ran."""
        if isinstance(action, Advance):
            return self._advance(action.first, action.last)
        if isinstance(action, Tape):
            return self._tape(action.first, action.last)
        if isinstance(action, Backward):
            return self._backward(action.first, action.last)
        return self._free(action.state)

    def _advance(self, first: int, last: int) -> tuple[float, int]:
        self._require_range(first, last)
        self._require_state(first - 1)
        self._require_absent(last)
        cost, need_bytes = self._sweep(first, last, 0)  # x_{first-1} is counted where it is stored
        peak = self.live_bytes + need_bytes
        self.live_bytes += self._chain.state_bytes(last)
        self._checkpoints.add(last)
        self._advance_count += last - first + 1
        return cost, peak

    def _sweep(self, first: int, last: int, cursor_bytes: int) -> tuple[float, int]:
        """Cost of running first..last without tape and the most bytes it adds, where x_{first-1}
        adds `cursor_bytes` and every state goes when the next one is there.
        """
        cost: float = 0
        need = 0
        for part in self._chain.parts(first, last):
            stage = part.stage
            size = part.last - part.first + 1
            cost += size * stage.forward_cost
            run_bytes = stage.state_bytes + stage.forward_workspace_bytes
            need = max(need, cursor_bytes + run_bytes)
            if size > 1:
                need = max(need, stage.state_bytes + run_bytes)
            cursor_bytes = stage.state_bytes
        return cost, need

    def _tape(self, first: int, last: int) -> tuple[float, int]:
        self._require_range(first, last)
        self._require_state(first - 1)
        position = bisect_right(self._taped_first, last)
        if position and self._taped_last[position - 1] >= first:
            taped = max(first, self._taped_first[position - 1])
            raise Illegal(f"stage {taped} is taped already")
        if last > self.gradient_at:
            raise Illegal(f"stage {last} was reversed already")
        cost: float = 0
        peak = 0
        for part in self._chain.parts(first, last):
            stage = part.stage
            size = part.last - part.first + 1
            cost += size * stage.taped_forward_cost
            self.live_bytes += size * stage.tape_bytes
            peak = max(peak, self.live_bytes + stage.taped_forward_workspace_bytes)
        if first > 1 and not self._is_taped(first - 1):
            self._pinned.add(first - 1)
        self._taped_first.insert(position, first)
        self._taped_last.insert(position, last)
        self._tape_count += last - first + 1
        return cost, peak

    def _backward(self, first: int, last: int) -> tuple[float, int]:
        self._require_range(last, first)
        if first != self.gradient_at:
            raise Illegal(f"the gradient of x_{first} is not live: that of x_{self.gradient_at} is")
        self._untape(last, first)
        cost: float = 0
        peak = 0
        for part in reversed(list(self._chain.parts(last, first))):
            cost += (part.last - part.first + 1) * part.stage.backward_cost
            # Inside a run the most is live at its last stage; only the ends see other gradients.
            for stage_index in {part.last, max(part.first, part.last - 1)}:
                reversed_before = (part.last - stage_index) * part.stage.tape_bytes
                peak = max(peak, self._reversing(stage_index, part.stage) - reversed_before)
            self.live_bytes -= (part.last - part.first + 1) * part.stage.tape_bytes
            peak = max(peak, self._reversing(part.first, part.stage) + part.stage.tape_bytes)
        self.live_bytes += self._chain.gradient_bytes(last - 1) - self._chain.gradient_bytes(first)
        self.gradient_at = last - 1
        self._backward_count += first - last + 1
        return cost, peak

    def _reversing(self, index: int, stage: Stage) -> int:
        """Bytes live while stage `index` is reversed; its tape is counted, `live_bytes` still holds
        the gradient that the whole record started from.
        """
        gradients = self._chain.gradient_bytes(index) + self._chain.gradient_bytes(index - 1)
        started = self._chain.gradient_bytes(self.gradient_at)
        return self.live_bytes - started + gradients + stage.backward_workspace_bytes

    def _untape(self, first: int, last: int) -> None:
        """Take the tapes first..last out. They are on top: the gradient of x_last is live, so no
        later tape lives.
        """
        needed = last
        while needed >= first:
            if not self._taped_last or self._taped_last[-1] != needed:
                raise Illegal(f"stage {needed} is not taped")
            begin = self._taped_first[-1]
            if begin >= first:
                self._taped_first.pop()
                self._taped_last.pop()
                self._pinned.discard(begin - 1)
            else:
                self._taped_last[-1] = first - 1
            needed = begin - 1

    def _free(self, state: int) -> tuple[float, int]:
        if state not in self._checkpoints:
            raise Illegal(f"x_{state} is not a checkpoint")
        if state in self._pinned:
            raise Illegal(f"the tape of stage {state + 1} still needs x_{state}")
        peak = self.live_bytes
        self._checkpoints.remove(state)
        self.live_bytes -= self._chain.state_bytes(state)
        return 0, peak

    def _is_taped(self, stage: int) -> bool:
        position = bisect_right(self._taped_first, stage)
        return position > 0 and self._taped_last[position - 1] >= stage

    def _require_range(self, first: int, last: int) -> None:
        if not 1 <= first <= last <= self._chain.length:
            raise Illegal(f"stages {first}..{last} are not a range inside 1..{self._chain.length}")

    def _require_absent(self, state: int) -> None:
        if state in self._checkpoints:
            raise Illegal(f"x_{state} is stored already")

    def _require_state(self, state: int) -> None:
        if state and state not in self._checkpoints and not self._is_taped(state):
            raise Illegal(f"x_{state} is not live: neither stored nor the output of a live tape")
