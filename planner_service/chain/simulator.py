"""The judge: replays a schedule action by action under the memory model of docs/memory_model.md.

It shares no code with any solver. A plan's makespan, peak and counts *are* what `simulate` returns,
and a stranger's schedule is judged by the same rules: legal, or the first illegal action and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from planner_service.chain.actions import Action, Advance, Archive, Backward, Tape, Undo
from planner_service.chain.chain import Chain
from planner_service.chain.ranges import StageRanges
from planner_service.chain.stage import Reversal, Stage
from planner_service.chain.verdict import IllegalAction, IllegalSchedule, StagesRun, Tally, Verdict


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


def simulate(chain: Chain, schedule: Iterable[Action], budget_bytes: int | None = None) -> Verdict:
    """Replay `schedule` on `chain`; an action that would exceed `budget_bytes` is illegal too.

    Takes O(1) per record and equal run of stages, and memory for what is stored at once.
    """
    replay = Replay(chain)
    tally = Tally(replay.live_bytes, replay.stages_run)
    makespan: float = 0
    for moment in tally.counted(_moments(replay, schedule, budget_bytes)):
        makespan += moment.cost
    return tally.verdict(makespan)


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
        self._taped = StageRanges()
        self._archived = StageRanges()
        self.gradient_at = chain.length  # the state whose gradient is live
        self.live_bytes = chain.static_bytes + chain.input_bytes + chain.loss_gradient_bytes
        self._advance_count = 0
        self._tape_count = 0
        self._backward_count = 0
        self._undo_count = 0

    def stages_run(self) -> StagesRun:
        """Stages advanced, taped, reversed and, among these, undone so far."""
        return self._advance_count, self._tape_count, self._backward_count, self._undo_count

    def run(self, action: Action) -> tuple[float, int]:
        """Apply the action; return its cost and the most bytes live while it ran."""
        if isinstance(action, Advance):
            return self._advance(action.first, action.last)
        if isinstance(action, Tape):
            return self._tape(action.first, action.last)
        if isinstance(action, Backward):
            return self._backward(action.first, action.last)
        if isinstance(action, Archive):
            return self._archive(action.first, action.last)
        if isinstance(action, Undo):
            return self._undo(action.first, action.last)
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
        self._require_fresh(first, last)
        cost: float = 0
        peak = 0
        for part in self._chain.parts(first, last):
            stage = part.stage
            size = part.last - part.first + 1
            cost += size * stage.taped_forward_cost
            self.live_bytes += size * stage.tape_bytes
            peak = max(peak, self.live_bytes + stage.taped_forward_workspace_bytes)
        if first > 1 and first - 1 not in self._taped:
            self._pinned.add(first - 1)
        self._taped.add(first, last)
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
        begins, missing = self._taped.take_top(first, last)
        if missing is not None:
            raise Illegal(f"stage {missing} is not taped")
        self._pinned.difference_update(begin - 1 for begin in begins)

    def _archive(self, first: int, last: int) -> tuple[float, int]:
        self._require_range(first, last)
        self._require_state(first - 1)
        self._require_absent(last)
        self._require_fresh(first, last)
        cost: float = 0
        peak = archived = cursor_bytes = 0
        for part in self._chain.parts(first, last):
            stage, size = part.stage, part.last - part.first + 1
            bits = _reversal(part.stage, part.first).archive_bytes
            run_bytes = stage.state_bytes + stage.archiving_workspace_bytes
            cost += size * stage.archiving_cost
            peak = max(peak, archived + bits + cursor_bytes + run_bytes)
            archived += size * bits
            if size > 1:
                peak = max(peak, archived + stage.state_bytes + run_bytes)
            cursor_bytes = stage.state_bytes
        peak += self.live_bytes
        self._archived.add(first, last)
        self._checkpoints.add(last)
        self.live_bytes += archived + self._chain.state_bytes(last)
        self._advance_count += last - first + 1
        return cost, peak

    def _undo(self, first: int, last: int) -> tuple[float, int]:
        self._require_range(last, first)
        if first != self.gradient_at:
            raise Illegal(f"the gradient of x_{first} is not live: that of x_{self.gradient_at} is")
        if first not in self._checkpoints:
            raise Illegal(f"x_{first} is not a checkpoint, from which stage {first} could be undone")
        _, missing = self._archived.take_top(last, first)
        if missing is not None:
            raise Illegal(f"stage {missing} is not archived")
        chain = self._chain
        # What stays: all but the state on its way back and its gradient, which change stage by stage.
        self.live_bytes -= chain.state_bytes(first) + chain.gradient_bytes(first)
        cost: float = 0
        peak = 0
        for part in reversed(list(chain.parts(last, first))):
            reversal, size = _reversal(part.stage, part.last), part.last - part.first + 1
            cost += size * reversal.undo_cost
            # Inside a run the most is live at its last stage; only the ends see other states and gradients.
            for stage in {part.last, max(part.first, part.last - 1), part.first}:
                gone_bytes = (part.last - stage) * reversal.archive_bytes
                peak = max(peak, self.live_bytes - gone_bytes + self._undoing(stage, reversal))
            self.live_bytes -= size * reversal.archive_bytes
        self._checkpoints.remove(first)
        if last > 1 and last - 1 not in self._checkpoints:
            self._checkpoints.add(last - 1)
            self.live_bytes += chain.state_bytes(last - 1)
        self.live_bytes += chain.gradient_bytes(last - 1)
        self.gradient_at = last - 1
        self._backward_count += first - last + 1
        self._undo_count += first - last + 1
        return cost, peak

    def _undoing(self, index: int, reversal: Reversal) -> int:
        """Bytes of stage `index` while it is undone: both its states, both gradients, the workspace."""
        states = self._chain.state_bytes(index) + self._chain.state_bytes(index - 1)
        gradients = self._chain.gradient_bytes(index) + self._chain.gradient_bytes(index - 1)
        return states + gradients + reversal.undo_workspace_bytes

    def _free(self, state: int) -> tuple[float, int]:
        if state not in self._checkpoints:
            raise Illegal(f"x_{state} is not a checkpoint")
        if state in self._pinned:
            raise Illegal(f"the tape of stage {state + 1} still needs x_{state}")
        peak = self.live_bytes
        self._checkpoints.remove(state)
        self.live_bytes -= self._chain.state_bytes(state)
        return 0, peak

    def _require_range(self, first: int, last: int) -> None:
        if not 1 <= first <= last <= self._chain.length:
            raise Illegal(f"stages {first}..{last} are not a range inside 1..{self._chain.length}")

    def _require_absent(self, state: int) -> None:
        if state in self._checkpoints:
            raise Illegal(f"x_{state} is stored already")

    def _require_state(self, state: int) -> None:
        if state and state not in self._checkpoints and state not in self._taped:
            raise Illegal(f"x_{state} is not live: neither stored nor the output of a live tape")

    def _require_fresh(self, first: int, last: int) -> None:
        """Stages to tape or archive are neither of both yet, and not reversed."""
        for stages, what in ((self._taped, "taped"), (self._archived, "archived")):
            if (stage := stages.any_of(first, last)) is not None:
                raise Illegal(f"stage {stage} is {what} already")
        if last > self.gradient_at:
            raise Illegal(f"stage {last} was reversed already")


def _reversal(stage: Stage, index: int) -> Reversal:
    if stage.reversal is None:
        raise Illegal(f"stage {index} cannot be undone: it has no reversal")
    return stage.reversal
