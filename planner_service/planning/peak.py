"""What a plan holds at its peak, item by item: the lines that add up to the projected peak."""

from __future__ import annotations

from collections.abc import Iterable

from planner_service.chain import (
    Advance,
    Archive,
    Backward,
    Chain,
    Fetch,
    Free,
    Moment,
    Move,
    Tape,
    TieredAction,
    TimedMoment,
    Undo,
)
from planner_service.chain.tiers_actions import describe
from planner_service.memory import Candidate, LedgerLine, Source


def peak_ledger(
    candidate: Candidate, replay: Iterable[Moment | TimedMoment], peak_bytes: int
) -> list[LedgerLine]:
    """The static lines of `candidate`, then what is live when `replay` first reaches `peak_bytes`.

    The lines add up to `peak_bytes`, which must be the peak of that replay.
    """
    chain = candidate.chain
    lines = list(candidate.ledger)
    initial = candidate.sources.states
    lines.append(LedgerLine("initial state", chain.input_bytes, f"x_0: {initial.formula}", initial.exactness))
    held = _Held(chain)
    for moment in replay:
        if moment.peak_bytes == peak_bytes:
            lines += _lines_of(candidate, moment, held)
            break
        held.follow(moment.action)
    return lines


def window_ledger(candidate: Candidate, window_stages: int, peak_bytes: int) -> list[LedgerLine]:
    """The lines of a plan that reverses the chain window by window: what one window adds is one line."""
    lines = list(candidate.ledger)
    added = peak_bytes - candidate.chain.static_bytes
    tapes = candidate.sources.tapes
    formula = f"states, tapes, gradients of {window_stages} stages: {tapes.formula}"
    return [*lines, LedgerLine("one window", added, formula, tapes.exactness)]


class _Held:
    """Which checkpoints, archived bits and which gradient are live between two actions."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._states: set[int] = set()
        self.archive_bytes = 0
        self.gradient_at = chain.length

    def follow(self, action: TieredAction) -> None:
        if isinstance(action, Advance):
            self._keep(action.last)
        elif isinstance(action, Move):
            self._keep(action.last)
            self._drop(action.first - 1)
        elif isinstance(action, Fetch):
            self._keep(action.state)
        elif isinstance(action, Free):
            self._drop(action.state)
        elif isinstance(action, Archive):
            self._keep(action.last)
            self.archive_bytes += archived_bytes(self._chain, action.first, action.last)
        elif isinstance(action, Undo):
            self._drop(action.first)
            self._keep(action.last - 1)
            self.archive_bytes -= archived_bytes(self._chain, action.last, action.first)
            self.gradient_at = action.last - 1
        elif isinstance(action, Backward):
            self.gradient_at = action.last - 1

    def _keep(self, state: int) -> None:
        if state:
            self._states.add(state)

    def _drop(self, state: int) -> None:
        self._states.discard(state)

    @property
    def checkpoint_count(self) -> int:
        return len(self._states)

    @property
    def checkpoint_bytes(self) -> int:
        return sum(self._chain.state_bytes(state) for state in self._states)

    @property
    def gradient_bytes(self) -> int:
        return self._chain.gradient_bytes(self.gradient_at)


def _lines_of(candidate: Candidate, moment: Moment | TimedMoment, held: _Held) -> list[LedgerLine]:
    chain = candidate.chain
    states, tapes, workspace, archive = candidate.sources
    outside_bytes = chain.static_bytes + chain.input_bytes + held.archive_bytes
    live_tape_bytes = moment.live_before_bytes - outside_bytes - held.checkpoint_bytes - held.gradient_bytes
    running_bytes = moment.peak_bytes - moment.live_before_bytes
    new_tape_bytes = _new_tape_bytes(chain, moment.action, running_bytes)
    new_archive_bytes = _new_archive_bytes(chain, moment.action, running_bytes)
    stored = f"{held.checkpoint_count} stored states: {states.formula}"
    running = f"while `{describe(moment.action)}` runs: {workspace.formula}"
    return [
        LedgerLine("checkpoints", held.checkpoint_bytes, stored, states.exactness),
        *(_archive_lines(held.archive_bytes + new_archive_bytes, archive)),
        LedgerLine("tapes", live_tape_bytes + new_tape_bytes, tapes.formula, tapes.exactness),
        LedgerLine(
            "state gradient",
            held.gradient_bytes,
            f"gradient of x_{held.gradient_at}: {states.formula}",
            states.exactness,
        ),
        LedgerLine(
            "workspace", running_bytes - new_tape_bytes - new_archive_bytes, running, workspace.exactness
        ),
    ]


def archived_bytes(chain: Chain, first: int, last: int) -> int:
    """The most that the bits of stages first..last take once they are archived."""
    reversals = ((part, part.stage.reversal) for part in chain.parts(first, last))
    return sum(
        (part.last - part.first + 1) * reversal.archive_bytes for part, reversal in reversals if reversal
    )


def _archive_lines(size: int, source: Source | None) -> list[LedgerLine]:
    if source is None or not size:
        return []
    return [LedgerLine("archive", size, source.formula, source.exactness)]


def _new_archive_bytes(chain: Chain, action: TieredAction, running_bytes: int) -> int:
    if not isinstance(action, Archive):
        return 0
    return min(running_bytes, archived_bytes(chain, action.first, action.last))


def _new_tape_bytes(chain: Chain, action: TieredAction, running_bytes: int) -> int:
    """What of the running bytes is tapes: all that the action records, unless its peak comes earlier."""
    if not isinstance(action, Tape):
        return 0
    parts = chain.parts(action.first, action.last)
    return min(running_bytes, sum((part.last - part.first + 1) * part.stage.tape_bytes for part in parts))
