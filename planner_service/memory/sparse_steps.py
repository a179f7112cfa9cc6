"""Chains of a model whose gate gradients are sparsified, as executor.sparse runs a segment.

A segment of k steps; U is one tensor of batch x hidden, G the gates, P the parameters:

    tape      = k x (cells + embedded input + output + loss) + 3 states; a layer's cells: LSTM 7 U, GRU 5 U
    forward   = that of the steps + k x (cells of one layer + 2 U) + P
    backward  = that of the steps + k x (3 G + 3) U + 16 U + P; with rules for rows and columns + k x inputs
                + 8 B for every column that is kept of a stretch
    cost      = f forward, 2 f x (share of the backward MACs that the kernels run) backward

All gate gradients of a segment are held until its weight gradients are computed: once for x, once for h where
the two differ, once for the rows that are gathered, or before anything is dropped with error feedback.
P stands for weights packed for the matrix library. Rows of inputs are gathered, or those of their gradients
put together.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from planner_service.chain import PlanningError, Stage
from planner_service.memory.candidate import Candidate, Source, StageSources
from planner_service.memory.ledger import LedgerLine
from planner_service.memory.segment_lengths import segment_lengths
from planner_service.memory.segmented import counted_candidate
from planner_service.memory.sparsity import ENTRY_RULES, GradientSparsity
from planner_service.memory.steps import StepBytes, segment_stage
from planner_service.memory.workload import Workload

TAPED_UNITS = {"lstm": 7, "gru": 5}
"""What a tape keeps per step and layer: gates, c and tanh(c), or U h + b of the candidate, and h."""

_COPIES_OF_GATE_GRADIENTS = 3
_INDEX_BYTES = 8
_STEP_UNITS = 16
"""Tensors of a single step that are alive while a segment is reversed, whatever its length."""


class NotSparsified(PlanningError, ValueError):
    """Only LSTM and GRU have sparse cells."""

    field = "training.gradient_sparsity"

    def __init__(self, cell_kind: str) -> None:
        self.cell_kind = cell_kind
        super().__init__(
            f"model.kind={cell_kind!r} has no sparse cell: choose lstm or gru, or leave gradient_sparsity out"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (NotSparsified, (self.cell_kind,))


class UnevenBlocks(PlanningError, ValueError):
    """Blocks of that many columns do not divide the gates of a layer."""

    field = "training.gradient_sparsity.block_size"

    def __init__(self, *, block_size: int, columns: int) -> None:
        self.block_size = block_size
        self.columns = columns
        super().__init__(f"{block_size} does not divide the {columns} columns of the gates: choose a divisor")

    def __reduce__(self) -> tuple[object, ...]:
        return (_uneven_blocks, (self.block_size, self.columns))


def _uneven_blocks(block_size: int, columns: int) -> UnevenBlocks:
    return UnevenBlocks(block_size=block_size, columns=columns)


def require_sparse_cells(workload: Workload, sparsity: GradientSparsity) -> None:
    """Raise NotSparsified or UnevenBlocks where executor.sparse would refuse the model with this rule."""
    model = workload.model
    if model.cell_kind not in TAPED_UNITS:
        raise NotSparsified(model.cell_kind)
    columns = model.cell.gate_count * model.hidden_size
    if columns % sparsity.block_columns:
        raise UnevenBlocks(block_size=sparsity.block_columns, columns=columns)


def sparse_candidates(workload: Workload, sparsity: GradientSparsity) -> list[Candidate]:
    """One candidate per segment length. Raises InvalidChain beyond 2**62 bytes."""
    lengths = segment_lengths(workload.sequence_length)
    return [_candidate(workload, sparsity, steps) for steps in lengths]


def _candidate(workload: Workload, sparsity: GradientSparsity, segment_steps: int) -> Candidate:
    state_bytes = StepBytes(workload).state
    return counted_candidate(
        workload.sequence_length,
        segment_steps,
        partial(sparse_stage, workload, sparsity),
        ledger=(*workload.caller_ledger(), *workload.call_ledger(), *_feedback_lines(workload, sparsity)),
        input_bytes=state_bytes,
        loss_gradient_bytes=state_bytes,
        sources=_sources(workload, sparsity),
        gradient_sparsity=sparsity,
    )


def sparse_stage(workload: Workload, sparsity: GradientSparsity, segment_steps: int) -> Stage:
    """The stage of `segment_steps` steps; its cost unit is the forward pass of one step."""
    sizes, model = StepBytes(workload), workload.model
    dense = segment_stage(workload, sizes, segment_steps)
    units = TAPED_UNITS[model.cell_kind]
    per_step = model.num_layers * units * sizes.unit + sizes.wide_taped
    forward = segment_steps * (units + 2) * sizes.unit + model.parameter_bytes
    gate_units = _COPIES_OF_GATE_GRADIENTS * (model.cell.gate_count + 1)
    backward = (segment_steps * gate_units + _STEP_UNITS) * sizes.unit + model.parameter_bytes
    if sparsity.rule not in ENTRY_RULES:
        stretches = segment_steps // sparsity.stretch_steps + 2
        columns = model.cell.gate_count * model.hidden_size * sparsity.flow_ratio
        backward += segment_steps * sizes.input + _INDEX_BYTES * stretches * math.ceil(columns)
    return replace(
        dense,
        backward_cost=dense.backward_cost * sparsity.backward_ratio,
        tape_bytes=segment_steps * per_step + 3 * sizes.state,
        forward_workspace_bytes=dense.forward_workspace_bytes + forward,
        taped_forward_workspace_bytes=dense.taped_forward_workspace_bytes + model.parameter_bytes,
        backward_workspace_bytes=dense.backward_workspace_bytes + backward,
    )


def _feedback_lines(workload: Workload, sparsity: GradientSparsity) -> list[LedgerLine]:
    if not sparsity.error_feedback:
        return []
    size = 2 * workload.model.parameter_bytes
    formula = "2 x parameters: what is due in this iteration and what it drops itself"
    return [LedgerLine("error feedback", size, formula, "bound")]


def _sources(workload: Workload, sparsity: GradientSparsity) -> StageSources:
    units = TAPED_UNITS[workload.model.cell_kind]
    tensor = f"{workload.batch_size} x {workload.model.hidden_size} x {workload.model.item_bytes} B"
    layers = workload.model.num_layers
    return StageSources(
        states=Source(f"{layers} layers x {workload.model.cell.state_units} x {tensor}", "exact"),
        tapes=Source(f"per step {layers} layers x {units} x {tensor} + inputs, outputs, loss", "bound"),
        workspace=Source(f"all gate gradients of a segment, rule {sparsity.rule!r}", "bound"),
    )
