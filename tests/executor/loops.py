"""Small loops to unroll, and the oracle: the same loop in plain Python under autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from executor.offload.host_tapes import HostTapes
from executor.plan import ExecutionPlan, checkpoint_every, tape_everything
from planner_service.chain import EMPTY, ArchiveNode, CheckpointNode, Policy, TapeNode

torch.set_num_threads(1)

STEPS, BATCH, SIZE = 12, 3, 6


@dataclass
class LoopCase:
    """A step function with everything that `unroll` wants to know about it."""

    step: Callable[[Any, Any], Any]
    state: Any
    inputs: Any
    module: nn.Module | Sequence[nn.Module] | None = None
    captured: Sequence[Tensor] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def modules(self) -> list[nn.Module]:
        if self.module is None:
            return []
        return [self.module] if isinstance(self.module, nn.Module) else list(self.module)

    def leaves(self) -> list[Tensor]:
        """Everything that gets a gradient: parameters, inputs, initial state, captured tensors."""
        given = [leaf for leaf in pytree.tree_leaves((self.state, self.inputs)) if isinstance(leaf, Tensor)]
        given += [p for module in self.modules() for p in module.parameters()]
        return [leaf for leaf in (*given, *self.captured) if leaf.requires_grad]


def plain(case: LoopCase, steps: int = STEPS) -> tuple[Any, Any]:
    """Full BPTT: the loop as anyone would write it, outputs stacked."""
    state, outputs = case.state, []
    for step in range(steps):
        given = (
            case.inputs(step)
            if callable(case.inputs)
            else pytree.tree_map(
                lambda leaf, step=step: leaf[step] if isinstance(leaf, Tensor) else leaf, case.inputs
            )
        )
        state, output = case.step(state, given)
        outputs.append(output)
    if outputs[0] is None:
        return None, state
    columns = zip(*(pytree.tree_leaves(output) for output in outputs), strict=True)
    spec = pytree.tree_flatten(outputs[0])[1]
    return pytree.tree_unflatten([torch.stack(column) for column in columns], spec), state


def loss_of(outputs: Any, state: Any) -> Tensor:
    """A loss in which every element of every output and of the final state has its own weight."""
    total = torch.zeros((), dtype=torch.float64)
    for leaf in pytree.tree_leaves((outputs, state)):
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            weights = torch.linspace(-1, 2, leaf.numel(), dtype=torch.float64).reshape(leaf.shape)
            total = total + (leaf.double() * weights).sum()
    return total


def gradients(case: LoopCase, run: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any, list[Tensor | None]]:
    """Outputs, final state and the gradients of `case.leaves()` after one backward."""
    leaves = case.leaves()
    for leaf in leaves:
        leaf.grad = None
    outputs, state = run()
    found = torch.autograd.grad(loss_of(outputs, state), leaves, allow_unused=True)
    return outputs, state, list(found)


def sequence(size: int = SIZE, *, dtype: torch.dtype = torch.float64, requires_grad: bool = True) -> Tensor:
    """Inputs [STEPS, BATCH, size]."""
    return torch.randn(STEPS, BATCH, size, dtype=dtype, requires_grad=requires_grad)


def states(count: int = 1, *, dtype: torch.dtype = torch.float64, requires_grad: bool = True) -> Any:
    """One state [BATCH, SIZE], or a tuple of them."""
    made = tuple(torch.randn(BATCH, SIZE, dtype=dtype, requires_grad=requires_grad) for _ in range(count))
    return made[0] if count == 1 else made


def cell_case(kind: str, dtype: torch.dtype = torch.float64) -> LoopCase:
    """RNN, GRU or LSTM cell with a linear head."""
    cell = getattr(nn, f"{kind}Cell")(SIZE, SIZE).to(dtype)
    head = nn.Linear(SIZE, 2).to(dtype)

    def step(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        state = cell(x, state)
        return state, head(state[0] if isinstance(state, tuple) else state)

    return LoopCase(
        step, states(2 if kind == "LSTM" else 1, dtype=dtype), sequence(dtype=dtype), (cell, head)
    )


def fused_case(kind: str, dtype: torch.dtype = torch.float64) -> LoopCase:
    """nn.RNN, nn.GRU or nn.LSTM as a segment function; `step` is the same module on one step."""
    module = getattr(nn, kind)(SIZE, SIZE).to(dtype)

    def segment(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        output, state = module(x, state)
        return state, output

    def step(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        state, output = segment(state, x.unsqueeze(0))
        return state, output[0]

    shape = (1, BATCH, SIZE)
    count = 2 if kind == "LSTM" else 1
    state = tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(count))
    return LoopCase(
        step, state if count == 2 else state[0], sequence(dtype=dtype), module, options={"segment": segment}
    )


def two_levels(steps: int) -> ExecutionPlan:
    """Checkpoints inside checkpoints, tapes beside advances: every rule of a policy is used."""
    nodes = (
        TapeNode(1, EMPTY),
        TapeNode(2, EMPTY),
        CheckpointNode(1, 1, 0),  # three stages: a checkpoint after the first
        TapeNode(1, 2),  # four: the first one taped, then the three
        CheckpointNode(3, 3, 2),  # seven
        TapeNode(steps - 10, EMPTY),
        CheckpointNode(3, 5, 2),
        CheckpointNode(7, 6, 4),
    )
    return ExecutionPlan(steps, 1, Policy(nodes, 7))


def tapes_in_host_memory(steps: int) -> ExecutionPlan:
    """Every step runs once: a stretch inside another, and the last tape stays."""
    nodes = (TapeNode(1, EMPTY), ArchiveNode(3, 0), ArchiveNode(steps - 4, 1))
    room = HostTapes(slot_bytes=2**20, most=steps)
    return ExecutionPlan(steps, 1, Policy(nodes, 2), host_tapes=room)


PLANS: dict[str, Callable[[int], ExecutionPlan]] = {
    "tape everything": lambda steps: tape_everything(steps, 1),
    "checkpoint every state": lambda steps: checkpoint_every(steps, 1, 1),
    "checkpoint every third": lambda steps: checkpoint_every(steps, 1, 3),
    "segments of five": lambda steps: checkpoint_every(steps, 5, 1),
    "segments of four in pairs": lambda steps: checkpoint_every(steps, 4, 2),
    "two levels": two_levels,
    "tapes in host memory": tapes_in_host_memory,
}
"""Plans by what they do; those in segments of one step are bitwise equal to full BPTT."""
