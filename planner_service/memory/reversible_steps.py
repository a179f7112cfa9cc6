"""Chains of a reversible model, whose segments can be undone, without any measurement of that model.

A segment of k steps; U is one tensor of batch x hidden, G the gates of the cell, P the parameters of
embedding and head and one layer's largest weight:

    state     = 16 B per unit of h and c: the register and its buffer (8 B where nothing is forgotten)
    tape      = k x (cells + embedded input + loss) + U for each register + state
    taped     = (G k + 4) U + k x (embedded input + loss); in an advance the tape's part as well
    backward  = (G + 1.5) k U per layer + 8 U + P + k x (embedded input + loss)
    archive   = units x k x bits / 8; none where nothing is forgotten
    undo      = tape beyond the state + backward, all at once, + 4 U per layer

The archive's figure is a bound: how many bits are lost depends on the gates. What it needs beyond that, a
word of 2 B for every unit (whose buffer may be nearly full when a stretch begins) and the last block of
32 KiB of each layer, is a line of the ledger of its own.
"""

from __future__ import annotations

import math
from functools import partial

from planner_service.chain import Reversal, Stage
from planner_service.memory.candidate import Candidate, Source, StageSources
from planner_service.memory.ledger import LedgerLine
from planner_service.memory.reversible_cells import BLOCK_BYTES, WORD_BYTES, ReversibleModel
from planner_service.memory.segment_lengths import segment_lengths
from planner_service.memory.segmented import counted_candidate
from planner_service.memory.steps import BACKWARD_RATIO, StepBytes
from planner_service.memory.workload import Workload

TAPED_UNITS = 4
REVERSING_UNITS = 8
"""Tensors of a single step that are alive while a segment is taped, or reversed, whatever its length."""
UNDOING_UNITS = 4
"""The same per layer while a segment is undone, on top of those of its reversal."""


def reversible_candidates(workload: Workload, model: ReversibleModel) -> list[Candidate]:
    """One candidate per segment length. Raises InvalidChain when a size exceeds 2**62 bytes."""
    return [_candidate(workload, model, steps) for steps in segment_lengths(workload.sequence_length)]


def _candidate(workload: Workload, model: ReversibleModel, segment_steps: int) -> Candidate:
    gradient_bytes = _gradient_bytes(workload, model)
    return counted_candidate(
        workload.sequence_length,
        segment_steps,
        partial(segment_stage, workload, model),
        ledger=(*workload.caller_ledger(), *workload.call_ledger(), *_archive_lines(workload, model)),
        input_bytes=model.state_bytes(workload.batch_size),
        loss_gradient_bytes=gradient_bytes,
        input_gradient_bytes=gradient_bytes,
        sources=_sources(workload, model, segment_steps),
    )


def segment_stage(workload: Workload, model: ReversibleModel, segment_steps: int) -> Stage:
    """The stage of `segment_steps` steps; its cost unit is the forward pass of one step.

    Undoing a segment computes its gates once, as a forward pass does, and they are its tape.
    """
    sizes, layers = StepBytes(workload), model.num_layers
    state_bytes = model.state_bytes(workload.batch_size)
    wide = segment_steps * (sizes.embedded + sizes.loss_computed)
    beyond_state = segment_steps * (sizes.cells_taped + sizes.embedded + sizes.loss_taped)
    beyond_state += layers * model.cell.state_units * sizes.unit
    gates = model.cell.gate_count
    taped_workspace = (gates * segment_steps + TAPED_UNITS) * sizes.unit + wide
    reversing = math.ceil((gates + 1.5) * segment_steps) * layers + REVERSING_UNITS
    backward_workspace = reversing * sizes.unit + wide + model.backward_parameter_bytes
    return Stage(
        forward_cost=segment_steps,
        taped_forward_cost=segment_steps,
        backward_cost=BACKWARD_RATIO * segment_steps,
        state_bytes=state_bytes,
        tape_bytes=beyond_state + state_bytes,
        forward_workspace_bytes=beyond_state + taped_workspace,
        taped_forward_workspace_bytes=taped_workspace,
        backward_workspace_bytes=backward_workspace,
        gradient_bytes=_gradient_bytes(workload, model),
        reversal=Reversal(
            archive_bytes=_archive_bytes(workload, model, segment_steps),
            undo_cost=(1 + BACKWARD_RATIO) * segment_steps,
            undo_workspace_bytes=beyond_state + backward_workspace + layers * UNDOING_UNITS * sizes.unit,
        ),
    )


def _archive_bytes(workload: Workload, model: ReversibleModel, segment_steps: int) -> int:
    return math.ceil(model.register_units(workload.batch_size) * segment_steps * model.lost_bits / 8)


def _gradient_bytes(workload: Workload, model: ReversibleModel) -> int:
    """Gradient of a state: of its registers, in their type."""
    return 8 * model.register_units(workload.batch_size)


def _archive_lines(workload: Workload, model: ReversibleModel) -> list[LedgerLine]:
    if model.never_forgets:
        return []
    units = model.register_units(workload.batch_size)
    size = WORD_BYTES * units + BLOCK_BYTES * model.num_layers
    formula = f"{units} units x {WORD_BYTES} B + {model.num_layers} layers x {BLOCK_BYTES} B"
    return [LedgerLine("archive: begun words and blocks", size, formula, "bound")]


def _sources(workload: Workload, model: ReversibleModel, segment_steps: int) -> StageSources:
    cell, layers = model.cell, model.num_layers
    tensor = f"{workload.batch_size} x {model.hidden_size} x {model.item_bytes} B"
    per_unit = 8 if model.never_forgets else 16
    units = model.register_units(workload.batch_size)
    return StageSources(
        states=Source(f"{units} units of the registers x {per_unit} B", "exact"),
        tapes=Source(
            f"per segment {segment_steps} steps x ({layers} layers x {cell.taped_units} x {tensor} + inputs, "
            "loss) + one state; counted tensor by tensor",
            "bound",
        ),
        workspace=Source(
            f"{cell.gate_count} gates x {segment_steps} steps x {tensor}; in reverse for each layer, + "
            "parameters of embedding and head and a layer's largest weight; while a stage is undone its "
            "tape too",
            "bound",
        ),
        archive=Source(
            f"{units} units x {segment_steps} steps x {model.lost_bits:g} bits per archived segment; the "
            "exact figure follows from the gates",
            "bound",
        ),
    )
