"""The use case behind a submitted job: how much free memory a node must have to be given it.

Estimates from the formulas of the memory model, before anything is probed. The worker on the node
plans from its own probe; what is decided here is only whom to offer the job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner_service.chain import InvalidChain
from planner_service.contract import (
    OFFLOAD,
    Embedding,
    GradientSparsity,
    Head,
    Question,
    RecurrentModel,
    ReversibleModel,
    Training,
)
from planner_service.contract import Sequence as SequenceSpec
from planner_service.contract.budget import FREE, share_of
from planner_service.contract.jobs import JobModel, JobRequest
from planner_service.contract.reversible import REVERSIBLE_KINDS
from planner_service.jobs import DeviceKind, DeviceNeeds, JobNeeds
from planner_service.memory import Profile
from planner_service.planning.candidates import candidates_of
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.planning.tiered import strategies
from planner_service.solvers import REVERSIBLE, Cancellation, UnknownStrategy

MOST_BYTES = 2**63 - 1
"""No database keeps a larger number."""
ALPHABET_SIZE = 128
"""Most characters that a worker tells apart; how many a text has, it knows when it has read it."""


def job_needs(
    request: JobRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> JobNeeds:
    """The bytes that the job needs on a CPU and on a GPU.

    Raises PlanningError: UnknownStrategy, InvalidChain when sizes leave the planner's range, Cancelled.
    """
    known = strategies(())
    if request.model.kind in REVERSIBLE_KINDS:
        known = (*known, REVERSIBLE)
    if request.host_budget is not None:
        known = (*known, OFFLOAD)
    if request.strategy not in known:
        raise UnknownStrategy(strategy=request.strategy, known=known)
    return JobNeeds(
        cpu=_needs(request, "cpu", known_profiles, cancellation),
        cuda=_needs(request, "cuda", known_profiles, cancellation),
    )


def _needs(
    request: JobRequest,
    device: DeviceKind,
    known_profiles: Sequence[Profile],
    cancellation: Cancellation | None,
) -> DeviceNeeds:
    candidates = candidates_of(question_of_job(request, device), known_profiles)
    # Beside a GPU the host's memory is another; a CPU has one for both.
    host_bytes = request.host_budget or 0 if device == "cpu" else 0
    held_bytes = min(candidate.chain.static_bytes for candidate in candidates) + host_bytes
    least_bytes = least_budget_bytes(candidates, cancellation) + host_bytes
    store_all_bytes = full_bptt(candidates).peak_bytes
    needed_bytes = _needed_bytes(
        request.budget,
        held_bytes=held_bytes,
        least_bytes=least_bytes,
        activation_bytes=store_all_bytes + host_bytes - held_bytes,
    )
    if max(needed_bytes, least_bytes) > MOST_BYTES:
        field = "host_budget" if request.host_budget else "budget"
        raise InvalidChain(f"the job needs {needed_bytes} bytes: the most is {MOST_BYTES}", field=field)
    return DeviceNeeds(held_bytes=held_bytes, least_bytes=least_bytes, needed_bytes=needed_bytes)


def _needed_bytes(budget: int | str, *, held_bytes: int, least_bytes: int, activation_bytes: int) -> int:
    if isinstance(budget, int):
        return held_bytes + budget
    share = share_of(budget)
    if budget == FREE or share is None:
        return least_bytes
    return held_bytes + max(1, int(share * activation_bytes))


def question_of_job(request: JobRequest, device: DeviceKind) -> Question:
    """The job's model and sequence as the planner takes them."""
    return Question(
        model=_model(request.model),
        sequence=SequenceSpec(length=request.sequence.length, batch_size=request.sequence.batch_size),
        training=Training(
            optimizer=request.training.optimizer, loss="inside", gradient_sparsity=_sparsity(request)
        ),
        device=device,
    )


def _sparsity(request: JobRequest) -> GradientSparsity | None:
    given = request.training.gradient_sparsity
    return None if given is None else GradientSparsity(**given.model_dump(exclude={"cosine_every"}))


def _model(model: JobModel) -> RecurrentModel | ReversibleModel:
    sections: dict[str, Any] = {
        "kind": model.kind,
        "input_size": model.embedding_size,
        "hidden_size": model.hidden_size,
        "num_layers": model.num_layers,
        "dtype": model.dtype,
        "embedding": Embedding(vocabulary_size=ALPHABET_SIZE),
        "head": Head(output_size=ALPHABET_SIZE),
    }
    if model.kind not in REVERSIBLE_KINDS:
        return RecurrentModel(**sections)
    limit: dict[str, Any] = {} if model.kind.startswith("nf_") else {"forget_bits": model.forget_bits}
    return ReversibleModel(**sections, **limit)
