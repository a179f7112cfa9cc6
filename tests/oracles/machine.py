"""The memory table of docs/memory_model.md, once more: per step, naive, sharing no code with the judge.

Every record is taken apart into single stages; what is live is summed anew from plain dictionaries
before and after every one of them. Slow on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from planner_service.chain import Action, Advance, Archive, Backward, Chain, Free, Stage, Tape, Undo


class Refused(Exception):
    """The machine cannot do this."""


@dataclass
class Findings:
    """What the naive replay saw, for comparison with a Verdict."""

    makespan: float = 0
    peak_bytes: int = 0
    advance_count: int = 0
    tape_count: int = 0
    backward_count: int = 0
    undo_count: int = 0
    illegal_index: int | None = None


@dataclass
class Machine:
    """The stored states, the live tapes and the one gradient, each with its bytes."""

    chain: Chain
    checkpoints: dict[int, int] = field(default_factory=dict)
    tapes: dict[int, int] = field(default_factory=dict)
    pins: dict[int, int] = field(default_factory=dict)
    """Taped stage -> the checkpoint that its tape refers to."""
    archive: dict[int, int] = field(default_factory=dict)
    """Archived stage -> the bytes of its bits."""
    gradient: int = -1
    on_the_way: set[int] = field(default_factory=set)
    """The state that an `undo` of several stages has come to, stored nowhere."""

    def __post_init__(self) -> None:
        self.stages: list[Stage] = list(self.chain.stages())
        self.gradient = len(self.stages)

    def stage(self, index: int) -> Stage:
        """Stage `index`, from 1."""
        return self.stages[index - 1]

    def state_size(self, index: int) -> int:
        """a_index."""
        return self.chain.input_bytes if index == 0 else self.stage(index).state_bytes

    def gradient_size(self, index: int) -> int:
        """g_index, straight from the table's footnotes."""
        if index == len(self.stages):
            return self.chain.loss_gradient_bytes
        given = self.chain.input_gradient_bytes if index == 0 else self.stage(index).gradient_bytes
        return self.state_size(index) if given is None else given

    def live_bytes(self) -> int:
        """Static + a_0 + every checkpoint + every tape + the one gradient."""
        held = [self.chain.static_bytes, self.chain.input_bytes, self.gradient_size(self.gradient)]
        kept = (self.checkpoints, self.tapes, self.archive)
        return sum(held) + sum(sum(kind.values()) for kind in kept)

    def is_live(self, state: int) -> bool:
        """Whether x_state can be read."""
        return state == 0 or state in self.checkpoints or state in self.tapes

    def singles(self, action: Action) -> Iterator[tuple[float, int]]:
        """Run the action one stage at a time: (cost, most bytes live) of each."""
        if isinstance(action, Advance):
            yield from self._advance(action.first, action.last)
        elif isinstance(action, Tape):
            self._require(1 <= action.first <= action.last <= len(self.stages))
            self._require_untouched(action.first, action.last)
            for index in range(action.first, action.last + 1):
                yield self._tape(index)
        elif isinstance(action, Backward):
            self._require(1 <= action.last <= action.first <= len(self.stages))
            self._require(all(i in self.tapes for i in range(action.last, action.first + 1)))
            for index in range(action.first, action.last - 1, -1):
                yield self._backward(index)
        elif isinstance(action, Archive):
            yield from self._archive(action.first, action.last)
        elif isinstance(action, Undo):
            self._require(1 <= action.last <= action.first <= len(self.stages))
            self._require(all(i in self.archive for i in range(action.last, action.first + 1)))
            for index in range(action.first, action.last - 1, -1):
                yield self._undo(index, is_last=index == action.last)
        else:
            yield self._free(action)

    def _require_untouched(self, first: int, last: int) -> None:
        self._require(not any(i in self.tapes or i in self.archive for i in range(first, last + 1)))
        self._require(last <= self.gradient)

    def _archive(self, first: int, last: int) -> Iterator[tuple[float, int]]:
        self._require(1 <= first <= last <= len(self.stages))
        self._require(self.is_live(first - 1))
        self._require(last not in self.checkpoints)
        self._require_untouched(first, last)
        self._require(all(self.stage(i).reversal is not None for i in range(first, last + 1)))
        in_hand = 0
        for index in range(first, last + 1):
            stage = self.stage(index)
            self.archive[index] = stage.reversal.archive_bytes
            live = self.live_bytes() + in_hand + stage.state_bytes + stage.forward_workspace_bytes
            in_hand = stage.state_bytes
            yield stage.forward_cost, live
        self.checkpoints[last] = in_hand

    def _undo(self, index: int, *, is_last: bool) -> tuple[float, int]:
        self._require(index == self.gradient)
        self._require(index in self.checkpoints or index in self.on_the_way)
        reversal = self.stage(index).reversal
        if index in self.on_the_way:  # beside a checkpoint of the same state there may be two
            self.on_the_way.remove(index)
            moving = self.state_size(index)
        else:
            moving = self.checkpoints.pop(index)
        before = self.state_size(index - 1)
        work = self.gradient_size(index - 1) + reversal.undo_workspace_bytes
        live = self.live_bytes() + moving + before + work
        del self.archive[index]
        self.gradient = index - 1
        if not is_last:
            self.on_the_way.add(index - 1)
        elif index > 1:
            self.checkpoints.setdefault(index - 1, before)
        return reversal.undo_cost, live

    def _advance(self, first: int, last: int) -> Iterator[tuple[float, int]]:
        self._require(1 <= first <= last <= len(self.stages))
        self._require(self.is_live(first - 1))
        self._require(last not in self.checkpoints)
        in_hand = 0  # the intermediate state that the run of stages carries along
        for index in range(first, last + 1):
            stage = self.stage(index)
            live = self.live_bytes() + in_hand + stage.state_bytes + stage.forward_workspace_bytes
            in_hand = stage.state_bytes
            yield stage.forward_cost, live
        self.checkpoints[last] = in_hand

    def _tape(self, index: int) -> tuple[float, int]:
        self._require(self.is_live(index - 1))
        if index > 1 and index - 1 not in self.tapes:
            self.pins[index] = index - 1
        stage = self.stage(index)
        self.tapes[index] = stage.tape_bytes
        return stage.taped_forward_cost, self.live_bytes() + stage.taped_forward_workspace_bytes

    def _backward(self, index: int) -> tuple[float, int]:
        self._require(index == self.gradient)
        stage = self.stage(index)
        live = self.live_bytes() + self.gradient_size(index - 1) + stage.backward_workspace_bytes
        del self.tapes[index]
        self.pins.pop(index, None)
        self.gradient = index - 1
        return stage.backward_cost, live

    def _free(self, action: Free) -> tuple[float, int]:
        self._require(action.state in self.checkpoints)
        self._require(action.state not in self.pins.values())
        live = self.live_bytes()
        del self.checkpoints[action.state]
        return 0, live

    @staticmethod
    def _require(condition: bool) -> None:
        if not condition:
            raise Refused


def judge(chain: Chain, schedule: Iterable[Action], budget_bytes: int | None = None) -> Findings:
    """Replay the schedule; stop at the first action that the machine refuses or that is over budget."""
    machine = Machine(chain)
    found = Findings(peak_bytes=machine.live_bytes())
    counts = {Advance: 0, Tape: 0, Backward: 0, Free: 0, Archive: 0, Undo: 0}
    index = -1
    for index, action in enumerate(schedule):
        try:
            steps = list(machine.singles(action))
        except Refused:
            found.illegal_index = index
            break
        peak = max(live for _, live in steps)
        if budget_bytes is not None and peak > budget_bytes:
            found.illegal_index = index
            break
        found.makespan += sum(cost for cost, _ in steps)
        found.peak_bytes = max(found.peak_bytes, peak)
        counts[type(action)] += len(steps)
    else:
        found.illegal_index = None if machine.gradient == 0 else index + 1
    found.advance_count, found.tape_count = counts[Advance] + counts[Archive], counts[Tape]
    found.backward_count, found.undo_count = counts[Backward] + counts[Undo], counts[Undo]
    return found
