"""Random chains, budgets and schedules for hypothesis, and the chains of golden records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from planner_service.chain import (
    Action,
    Advance,
    Archive,
    Backward,
    Chain,
    Free,
    Reversal,
    Stage,
    StageRun,
    Tape,
    Undo,
)
from planner_service.chain.policy import EMPTY, ArchiveNode, CheckpointNode, Policy, PolicyNode, TapeNode
from tests.oracles.machine import Machine, Refused


def chain_of_record(record: dict[str, Any], *, scale: int = 1) -> Chain:
    """The chain of one case of golden/chains.json, its bytes multiplied by `scale`."""
    runs = []
    for row in record["stages"]:
        fields = {name: value for name, value in row.items() if name != "count"}
        fields |= {name: value * scale for name, value in fields.items() if name.endswith("_bytes")}
        runs.append(StageRun(row["count"], Stage(**fields)))
    return Chain(
        tuple(runs),
        input_bytes=record["input_bytes"] * scale,
        loss_gradient_bytes=record["loss_gradient_bytes"] * scale,
    )


def stages(*, sizes: int = 9, gradients: bool = True) -> st.SearchStrategy[Stage]:
    """One stage with integer costs (so that sums are exact) and sizes up to `sizes` bytes.

    The tape holds at least the output state, as it does in autograd.
    """
    small = st.integers(0, sizes)

    def build(draw: tuple[int, ...], gradient: int | None) -> Stage:
        forward, taped, backward, state, beyond, forward_ws, taped_ws, backward_ws = draw
        return Stage(
            forward_cost=forward,
            taped_forward_cost=forward + taped,
            backward_cost=backward,
            state_bytes=state,
            tape_bytes=state + beyond,
            forward_workspace_bytes=forward_ws,
            taped_forward_workspace_bytes=taped_ws,
            backward_workspace_bytes=backward_ws,
            gradient_bytes=gradient,
        )

    numbers = st.tuples(st.integers(1, 9), small, small, small, small, small, small, small)
    return st.builds(build, numbers, st.none() | small if gradients else st.none())


def reversals(*, sizes: int = 9) -> st.SearchStrategy[Reversal]:
    """How a stage is undone, with integer costs and sizes up to `sizes` bytes."""
    small = st.integers(0, sizes)
    return st.builds(Reversal, archive_bytes=small, undo_cost=small, undo_workspace_bytes=small)


@st.composite
def reversible_chains(draw: st.DrawFn, *, max_length: int = 7) -> Chain:
    """A chain of 1..max_length stages, all of which can be undone, in a few runs."""
    return _with_drawn(draw, draw(chains(max_length=max_length)), "reversal", reversals())


@st.composite
def lean_chains(draw: st.DrawFn, *, max_length: int = 8) -> Chain:
    """A chain whose tapes may be smaller than its states, which autograd never makes."""
    return _with_drawn(draw, draw(chains(max_length=max_length)), "tape_bytes", st.integers(0, 9))


def _with_drawn(draw: st.DrawFn, plain: Chain, field: str, values: st.SearchStrategy[Any]) -> Chain:
    """The chain with another `field` in the stages of each run."""
    drawn = draw(st.lists(values, min_size=len(plain.runs), max_size=len(plain.runs)))
    runs = zip(plain.runs, drawn, strict=True)
    return replace(
        plain, runs=tuple(StageRun(run.count, replace(run.stage, **{field: value})) for run, value in runs)
    )


@st.composite
def partly_reversible_chains(draw: st.DrawFn, *, max_length: int = 5) -> Chain:
    """A chain of 1..max_length stages, some of which can be undone: none, one or all among them."""
    plain = draw(chains(max_length=max_length))
    hows = draw(st.lists(st.none() | reversals(), min_size=plain.length, max_size=plain.length))
    stages = [replace(stage, reversal=how) for stage, how in zip(plain.stages(), hows, strict=True)]
    return replace(plain, runs=Chain.of(stages).runs)


@st.composite
def chains(draw: st.DrawFn, *, max_length: int = 7, homogeneous: bool | None = None) -> Chain:
    """A chain of 1..max_length stages in a few runs; one run when `homogeneous`."""
    if homogeneous is None:
        homogeneous = draw(st.booleans())
    if homogeneous:
        runs = (StageRun(draw(st.integers(1, max_length)), draw(stages(gradients=False))),)
    else:
        pool = draw(st.lists(stages(), min_size=1, max_size=3))
        length = draw(st.integers(1, max_length))
        chosen = draw(st.lists(st.sampled_from(pool), min_size=length, max_size=length))
        return Chain.of(chosen, **draw(surroundings()))
    return Chain(runs, **draw(surroundings()))


@st.composite
def surroundings(draw: st.DrawFn) -> dict[str, int | None]:
    """The byte fields of a chain that are not its stages'."""
    return {
        "input_bytes": draw(st.integers(0, 5)),
        "static_bytes": draw(st.integers(0, 5)),
        "loss_gradient_bytes": draw(st.integers(0, 5)),
        "input_gradient_bytes": draw(st.none() | st.integers(0, 5)),
    }


@st.composite
def policies(draw: st.DrawFn, length: int, *, undoing: bool = False) -> Policy:
    """Any decision tree over `length` stages, good or bad; with archived stretches if `undoing`."""
    nodes: list[PolicyNode] = []

    def grow(count: int) -> int:
        if count == 0:
            return EMPTY
        span = draw(st.integers(1, count))
        if span == count or draw(st.booleans()):
            kind = ArchiveNode if undoing and draw(st.booleans()) else TapeNode
            node: PolicyNode = kind(span, grow(count - span))
        else:
            node = CheckpointNode(span, right=grow(count - span), left=grow(span))
        nodes.append(node)
        return len(nodes) - 1

    root = grow(length)
    return Policy(tuple(nodes), root)


def actions(length: int) -> st.SearchStrategy[Action]:
    """Any action with indices around 0..length, sensible or not."""
    index = st.integers(-1, length + 1)
    pairs = st.tuples(index, index)
    return st.one_of(
        pairs.map(lambda pair: Advance(*sorted(pair))),
        pairs.map(lambda pair: Tape(*sorted(pair))),
        pairs.map(lambda pair: Backward(*sorted(pair, reverse=True))),
        index.map(Free),
        pairs.map(lambda pair: Advance(*pair)),
        pairs.map(lambda pair: Archive(*sorted(pair))),
        pairs.map(lambda pair: Undo(*sorted(pair, reverse=True))),
    )


def legal_records(machine: Machine) -> list[Action]:
    """Every record that the machine accepts in its present state."""
    length = len(machine.stages)
    spans = [(first, last) for first in range(1, length + 1) for last in range(first, length + 1)]
    candidates: list[Action] = [
        *(Advance(first, last) for first, last in spans),
        *(Tape(first, last) for first, last in spans),
        *(Backward(last, first) for first, last in spans),
        *(Archive(first, last) for first, last in spans),
        *(Undo(last, first) for first, last in spans),
        # A state from which an archived stage will be undone must stay, or the walk has no end.
        *(Free(state) for state in range(1, length + 1) if state not in machine.archive),
    ]
    return [action for action in candidates if _accepts(machine, action)]


def _accepts(machine: Machine, action: Action) -> bool:
    trial = Machine(machine.chain, dict(machine.checkpoints), dict(machine.tapes), dict(machine.pins))
    trial.gradient, trial.archive = machine.gradient, dict(machine.archive)
    try:
        list(trial.singles(action))
    except Refused:
        return False
    return True


@st.composite
def legal_schedules(draw: st.DrawFn, chain: Chain) -> list[Action]:
    """A random walk over legal actions, brought to its end: wasteful, not persistent, but legal."""
    machine = Machine(chain)
    schedule: list[Action] = []
    for _ in range(draw(st.integers(0, 12))):
        choices = legal_records(machine)
        if not choices:
            break
        _append(machine, schedule, draw(st.sampled_from(choices)))
    while machine.gradient:
        last = machine.gradient
        if last in machine.archive:
            _append(machine, schedule, Undo(last, last))
            continue
        if last not in machine.tapes:
            source = max(state for state in range(last) if machine.is_live(state))
            _append(machine, schedule, Tape(source + 1, last))
        _append(machine, schedule, Backward(last, last))
    return schedule


def _append(machine: Machine, schedule: list[Action], action: Action) -> None:
    list(machine.singles(action))
    schedule.append(action)
