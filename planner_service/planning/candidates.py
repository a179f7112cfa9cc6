"""From a request to the chains that could be planned."""

from __future__ import annotations

from planner_service.chain import Chain
from planner_service.contract import ChainModel, PlanRequest
from planner_service.memory import Candidate, LedgerLine


def candidates_of(request: PlanRequest) -> list[Candidate]:
    """One candidate per segment length; a single one for a chain, whose stages are given.

    Raises InvalidChain when sizes leave the range of the planner.
    """
    if isinstance(request.model, ChainModel):
        return [_given_chain(request.model, request.memory.reserved_bytes)]
    raise NotImplementedError


def _given_chain(model: ChainModel, reserved_bytes: int) -> Candidate:
    given = model.chain()
    chain = Chain(
        given.runs,
        input_bytes=given.input_bytes,
        static_bytes=given.static_bytes + reserved_bytes,
        loss_gradient_bytes=given.loss_gradient_bytes,
        input_gradient_bytes=given.input_gradient_bytes,
    )
    ledger = [LedgerLine("static", given.static_bytes, "model.static_bytes", "exact")]
    if reserved_bytes:
        ledger.append(LedgerLine("reserved", reserved_bytes, "memory.reserved_bytes", "exact"))
    return Candidate(
        segment_steps=None,
        last_steps=None,
        chain=chain,
        ledger=tuple(ledger),
        cost_unit="forward",
        stage_source="sizes as given",
        stage_exactness="exact",
    )
