"""The models that are timed, each as a full loop, under torch.utils.checkpoint, and inside a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from executor import unroll
from executor.drop_ins.recurrence import Recurrence, State, run_fused, segment_of
from executor.fused.cells import GRUCell, LSTMCell
from executor.loop import Loop
from executor.replay import outputs_needed

CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}

Iteration = Callable[[], None]
"""One forward and backward pass."""
MOST_GATES = 2**31 - 1
"""Numbers that a kernel of cuDNN may count in one call: longer sequences take several."""


@dataclass(frozen=True)
class Case:
    """One recurrent model over one sequence; the loss is computed inside each segment."""

    name: str
    module: nn.Module
    x: Tensor
    """[T, batch, features]; needs no gradient."""
    state: State
    segment: Callable[[State, Tensor], tuple[State, Tensor | None]]
    """Runs some steps; returns the state and their share of the loss, or None where it is not needed."""
    full: Callable[[], Tensor]
    """The loss with every step taped: the fused kernel in one call, or in as few as it can count, or the loop
    of cells.
    """
    step: Callable[[State, Tensor], tuple[State, Tensor]] | None = None
    """What is unrolled of a loop of cells: one step, the state and its share of the loss; None: `segment`."""
    rival_segment: Callable[[State, Tensor], tuple[State, Tensor]] | None = None
    """What torch.utils.checkpoint runs, where it is not `segment`: torch's own kernels."""

    def full_iteration(self) -> None:
        """Full BPTT."""
        self._iterate(self.full)

    def budgeted(self, budget_bytes: int, host_bytes: int | None = None) -> Iteration:
        """Inside a budget; with `host_bytes`, states or tapes may move to so much host memory."""
        return lambda: self._iterate(lambda: self._unrolled(budget_bytes, host_bytes))

    def checkpointed(self, segments: int) -> Iteration:
        """torch.utils.checkpoint, non-reentrant, over equal segments."""
        return lambda: self._iterate(lambda: self._checkpointed(segments))

    def loop(self) -> Loop:
        """What is unrolled, as the planner and the engine see it."""
        return Loop.of(
            self.step,
            self.state,
            self.x,
            module=self.module,
            reduce="sum",
            segment=self.segment if self.step is None else None,
            final_state="detached",
        )

    def _unrolled(self, budget_bytes: int, host_bytes: int | None) -> Tensor:
        loss, _ = unroll(
            self.step,
            self.state,
            self.x,
            module=self.module,
            budget=budget_bytes,
            host_budget=host_bytes,
            reduce="sum",
            segment=self.segment if self.step is None else None,
            final_state="detached",
        )
        return loss

    def _checkpointed(self, segments: int) -> Tensor:
        segment = self.rival_segment or self.segment
        taped = partial(checkpoint, segment, use_reentrant=False)
        return _in_calls(taped, self.state, self.x.chunk(segments))

    def _iterate(self, loss: Callable[[], Tensor]) -> None:
        self.module.zero_grad(set_to_none=True)
        torch.autograd.backward(loss())


def _in_calls(
    segment: Callable[[State, Tensor], tuple[State, Tensor]], state: State, parts: Sequence[Tensor]
) -> Tensor:
    """The sum of what `segment` puts out of each part, from `state` on."""
    total = parts[0].new_zeros(())
    for part in parts:
        state, loss = segment(state, part)
        total = total + loss
    return total


def fused(kind: str, *, hidden: int, batch: int, steps: int, device: str = "cpu") -> Case:
    """torch.nn.LSTM or GRU, as wide in as out."""
    module = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](hidden, hidden, device=device)
    x = torch.randn(steps, batch, hidden, device=device)
    recurrence = Recurrence.of(module)
    run = segment_of(module, recurrence)
    scale = 1 / x.numel()

    def segment(state: State, part: Tensor) -> tuple[State, Tensor | None]:
        state, y = run(state, part)
        return state, y.square().sum() * scale if outputs_needed() else None

    def rival(state: State, part: Tensor) -> tuple[State, Tensor]:
        state, y = run_fused(module, recurrence, state, part)
        return state, y.square().sum() * scale

    state = recurrence.initial_state(x, batch_size=batch)
    most_steps = MOST_GATES // (4 * hidden * batch)

    def full() -> Tensor:
        if steps > most_steps:
            return _in_calls(rival, state, x.split(most_steps))
        return module(x)[0].square().sum() * scale

    name = f"nn.{kind.upper()} H{hidden} B{batch}"
    return Case(name, module, x, state, segment, full, rival_segment=rival)


def looped(kind: str, *, hidden: int, batch: int, steps: int, cells: str = "torch") -> Case:
    """A Python loop over torch.nn.LSTMCell or GRUCell; within a budget over `cells`: torch's or our own."""
    cell = CELLS[kind](hidden, hidden)
    ours = {"lstm": LSTMCell, "gru": GRUCell}[kind].from_torch(cell) if cells == "own" else cell
    x = torch.randn(steps, batch, hidden)
    state = tuple(torch.zeros(batch, hidden) for _ in range(2 if kind == "lstm" else 1))
    plain, step = (_step_of(each, kind, scale=1 / x.numel()) for each in (cell, ours))

    def full() -> Tensor:
        return _run_loop(plain, state, x)[1]

    name = f"{kind.upper()}Cell loop H{hidden} B{batch}{', own cell' if cells == 'own' else ''}"
    return Case(name, ours, x, state, partial(_run_loop, plain), full, step=step)


Step = Callable[[State, Tensor], tuple[State, Tensor]]


def _step_of(cell: nn.Module, kind: str, *, scale: float) -> Step:
    def step(state: State, x_t: Tensor) -> tuple[State, Tensor]:
        after = cell(x_t, state if kind == "lstm" else state[0])
        after = after if kind == "lstm" else (after,)
        return after, after[0].square().sum() * scale

    return step


def _run_loop(step: Step, state: State, part: Tensor) -> tuple[State, Tensor]:
    total = part.new_zeros(())
    for x_t in part.unbind(0):
        state, loss = step(state, x_t)
        total = total + loss
    return state, total


def segments_against_loop(kind: str, *, hidden: int, batch: int, steps: int) -> Case:
    """Segments of the module, compared with the whole loop of cells that computes the same."""
    segments = fused(kind, hidden=hidden, batch=batch, steps=steps)
    cell = CELLS[kind](hidden, hidden)
    for name in dict(cell.named_parameters()):
        setattr(cell, name, getattr(segments.module, f"{name}_l0"))
    step = _step_of(cell, kind, scale=1 / segments.x.numel())
    state = tuple(part[0] for part in segments.state)
    return replace(
        segments, name=f"{segments.name} against the loop", full=lambda: _run_loop(step, state, segments.x)[1]
    )
