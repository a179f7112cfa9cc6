"""A candidate that is counted, not measured: every segment but the last has as many steps."""

from __future__ import annotations

from collections.abc import Callable

from planner_service.chain import Stage, segment_sizes, segmented_chain
from planner_service.memory.candidate import Candidate, StageSources
from planner_service.memory.ledger import LedgerLine, total_bytes
from planner_service.memory.sparsity import GradientSparsity


def counted_candidate(
    sequence_length: int,
    segment_steps: int,
    stage_of: Callable[[int], Stage],
    *,
    ledger: tuple[LedgerLine, ...],
    input_bytes: int,
    loss_gradient_bytes: int,
    input_gradient_bytes: int | None = None,
    sources: StageSources,
    gradient_sparsity: GradientSparsity | None = None,
) -> Candidate:
    """The candidate whose segments of k steps are the stages `stage_of(k)`, in forward passes of one step.

    The ledger says what is static; the other bytes are those of a Chain. Raises InvalidChain when a size
    exceeds 2**62 bytes.
    """
    segments, last_steps = segment_sizes(sequence_length, segment_steps)
    chain = segmented_chain(
        stage_of(segment_steps),
        segments,
        last=stage_of(last_steps),
        input_bytes=input_bytes,
        static_bytes=total_bytes(ledger),
        loss_gradient_bytes=loss_gradient_bytes,
        input_gradient_bytes=input_gradient_bytes,
    )
    return Candidate(
        segment_steps=segment_steps,
        last_steps=last_steps,
        chain=chain,
        ledger=ledger,
        cost_unit="forward",
        sources=sources,
        gradient_sparsity=gradient_sparsity,
    )
