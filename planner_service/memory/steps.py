"""Chains of a model whose cell is applied step by step, without any measurement of that model.

A segment of k steps. What it keeps is counted tensor by tensor; what it needs while it runs is bounded:

    tape      = k x (cells + embedded input + stacked output + loss) + state
    forward   = cells of one step + k x (embedded input + outputs and their stack + loss) + copy
    taped     = the same
    backward  = the same + (k + 1) x embedded input + 2 x parameters

The wide tensors (embedded inputs, outputs, logits) are counted for the whole segment, because an
implementation may compute them for k steps in one call: the gradient of a step's embedded input is then
spread over a buffer for all steps and added to another. Reversing a segment sums the parameter gradients of
its steps in one buffer while the next contribution is computed in another: 2 x parameters, beside
the gradients themselves. Kernels in half precision may reorder the weights first: a copy of them.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from planner_service.chain import Stage, segment_sizes
from planner_service.memory.candidate import Candidate, Source, StageSources
from planner_service.memory.ledger import LedgerLine, total_bytes
from planner_service.memory.segment_lengths import segment_lengths
from planner_service.memory.segmented import counted_candidate
from planner_service.memory.workload import Device, Workload

BLOCK_BYTES: dict[Device, int] = {"cpu": 1, "cuda": 512}
"""Sizes are rounded up to this: the CUDA caching allocator hands out multiples of 512 bytes."""

SCALAR_BYTES = 1024
"""Per step, for the few scalars of a loss, each in its own block."""

BACKWARD_RATIO = 2.0
"""Two matrix products for each one of the forward pass."""


class StepBytes:
    """What one step of a workload occupies, in bytes, each tensor rounded up to a block."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        model, batch_size = workload.model, workload.batch_size
        self.unit = self._block(batch_size * model.hidden_size * model.item_bytes)
        """One tensor of batch x hidden elements."""
        self.state = model.num_layers * model.cell.state_units * self.unit
        self.input = self._block(batch_size * model.input_size * model.item_bytes)
        """What enters the first layer."""
        self.embedded = 0 if model.embedding_size is None else self.input
        self.cells_computed = model.num_layers * model.cell.computed_units * self.unit
        taped_units = model.cell.taped_units if workload.device == "cpu" else model.cell.computed_units
        self.cells_taped = model.num_layers * taped_units * self.unit
        self.loss_computed, self.loss_taped = self._loss_bytes()
        self.weights_copied = model.parameter_bytes if model.item_bytes < 4 else 0

    @property
    def wide_computed(self) -> int:
        """What a call over many steps at once would hold per step: inputs, outputs, their stack, loss."""
        return self.embedded + 2 * self.unit + self.loss_computed

    @property
    def wide_taped(self) -> int:
        """What of it a tape keeps per step: the embedded input, the stacked output, the loss."""
        return self.embedded + self.unit + self.loss_taped

    def _loss_bytes(self) -> tuple[int, int]:
        """What a step's share of the loss computes, and what autograd keeps of it.

        Computed: logits, their copy in float32 where they are shorter, log-probabilities (or
        difference and square). Kept: the last of these; a softmax is reversed from its result alone.
        """
        workload = self._workload
        model, batch_size = workload.model, workload.batch_size
        logits = self._block(batch_size * model.output_size * model.item_bytes)
        if workload.loss == "outside":
            return (logits, 0) if model.head_output_size is not None else (0, 0)
        log_probabilities = self._block(batch_size * model.output_size * max(4, model.item_bytes))
        copied = log_probabilities if model.item_bytes < 4 else 0
        return logits + copied + log_probabilities + SCALAR_BYTES, log_probabilities + SCALAR_BYTES

    def _block(self, size: int) -> int:
        granule = BLOCK_BYTES[self._workload.device]
        return -(-size // granule) * granule


def step_candidates(workload: Workload) -> list[Candidate]:
    """One candidate per segment length. Raises InvalidChain when a size exceeds 2**62 bytes."""
    sizes = StepBytes(workload)
    ledger = (*workload.caller_ledger(), *workload.call_ledger())
    lengths = segment_lengths(workload.sequence_length)
    return [_candidate(workload, sizes, ledger, steps) for steps in lengths]


class SegmentBytes(NamedTuple):
    """What a stage takes, in bytes."""

    tape: int
    workspace: int
    """While it is advanced or taped."""
    backward_workspace: int


class SegmentedSteps(NamedTuple):
    """The stages of a candidate."""

    segment_steps: int
    segment_count: int
    inner: SegmentBytes
    last: SegmentBytes
    """Of the last segment, which may be shorter."""


class StepOutlines(NamedTuple):
    """The bytes of every candidate of a workload without the candidates."""

    state_bytes: int
    """Also of every gradient, of the input and of the gradient that comes from outside."""
    static_bytes: int
    lengths: list[SegmentedSteps]


def step_outlines(workload: Workload) -> StepOutlines:
    """What `step_candidates` would count, for answers about thousands of models."""
    sizes = StepBytes(workload)
    lengths = []
    for steps in segment_lengths(workload.sequence_length):
        count, last_steps = segment_sizes(workload.sequence_length, steps)
        inner = _segment_bytes(workload, sizes, steps)
        last = inner if last_steps == steps else _segment_bytes(workload, sizes, last_steps)
        lengths.append(SegmentedSteps(steps, count, inner, last))
    static_bytes = total_bytes(workload.caller_ledger()) + total_bytes(workload.call_ledger())
    return StepOutlines(sizes.state, static_bytes, lengths)


def _segment_bytes(workload: Workload, sizes: StepBytes, segment_steps: int) -> SegmentBytes:
    wide_bytes = sizes.cells_computed + segment_steps * sizes.wide_computed + sizes.weights_copied
    return SegmentBytes(
        # The state that a segment hands on may be a stack of its layers, beside the last step's own tensors.
        tape=segment_steps * (sizes.cells_taped + sizes.wide_taped) + sizes.state,
        workspace=wide_bytes,
        backward_workspace=(
            wide_bytes + (segment_steps + 1) * sizes.embedded + 2 * workload.model.parameter_bytes
        ),
    )


def _candidate(
    workload: Workload, sizes: StepBytes, ledger: tuple[LedgerLine, ...], segment_steps: int
) -> Candidate:
    return counted_candidate(
        workload.sequence_length,
        segment_steps,
        partial(segment_stage, workload, sizes),
        ledger=ledger,
        input_bytes=sizes.state,
        loss_gradient_bytes=sizes.state,
        sources=_sources(workload, sizes, segment_steps),
    )


def segment_stage(workload: Workload, sizes: StepBytes, segment_steps: int) -> Stage:
    """The stage of `segment_steps` steps; its cost unit is the forward pass of one step."""
    counted = _segment_bytes(workload, sizes, segment_steps)
    return Stage(
        forward_cost=segment_steps,
        taped_forward_cost=segment_steps,
        backward_cost=BACKWARD_RATIO * segment_steps,
        state_bytes=sizes.state,
        tape_bytes=counted.tape,
        forward_workspace_bytes=counted.workspace,
        taped_forward_workspace_bytes=counted.workspace,
        backward_workspace_bytes=counted.backward_workspace,
    )


def _sources(workload: Workload, sizes: StepBytes, segment_steps: int) -> StageSources:
    cell, layers = workload.model.cell, workload.model.num_layers
    tensor = f"{workload.batch_size} x {workload.model.hidden_size} x {workload.model.item_bytes} B"
    states = Source(f"{layers} layers x {cell.state_units} x {tensor}", "exact")
    measured = workload.device == "cpu"
    units = cell.taped_units if measured else cell.computed_units
    of_cells = f"{layers} layers x {units} x {tensor}"
    why = "measured on the CPU build of torch" if measured else "every tensor that the cell computes"
    return StageSources(
        states=states,
        tapes=Source(
            f"per segment {segment_steps} steps x ({of_cells} + {sizes.wide_taped} B of inputs, outputs, "
            f"loss) + one state; cells: {why}",
            "calibrated" if measured else "bound",
        ),
        workspace=Source(
            f"{layers} layers x {cell.computed_units} x {tensor} + {segment_steps} steps x "
            f"{sizes.wide_computed} B of inputs, outputs, loss + {sizes.weights_copied} B of weights; "
            f"in reverse + {segment_steps + 1} x {sizes.embedded} B of embedded inputs + 2 x parameters",
            "bound",
        ),
    )
