"""From a workload to its candidates: measured where there is a measurement, else counted and bounded."""

from __future__ import annotations

from collections.abc import Sequence

from planner_service.chain import InvalidChain
from planner_service.memory.candidate import Candidate
from planner_service.memory.profile import Profile, ProfileNeeded, profiled_candidates
from planner_service.memory.reversible_cells import ReversibleModel
from planner_service.memory.reversible_steps import reversible_candidates
from planner_service.memory.sparse_steps import require_sparse_cells, sparse_candidates
from planner_service.memory.steps import step_candidates
from planner_service.memory.workload import Workload


def candidates_for(
    workload: Workload, *, profile: Profile | None = None, known_profiles: Sequence[Profile] = ()
) -> list[Candidate]:
    """One candidate per segment length of `workload`.

    `profile` must match; among `known_profiles` the first that matches is used. Raises
    ProfileMismatch, ProfileNeeded (fused kernels without a measurement), NotSparsified or UnevenBlocks
    (a rule that the model's cells cannot follow) and InvalidChain (a size beyond 2**62 bytes).
    """
    try:
        return _candidates(workload, profile, known_profiles)
    except InvalidChain as error:
        raise InvalidChain(f"the model is out of range: {error}", field="model") from error


def is_counted(workload: Workload, known_profiles: Sequence[Profile] = ()) -> bool:
    """Whether the candidates are those of `step_candidates`, where no profile is given."""
    plain = workload.gradient_sparsity is None and not isinstance(workload.model, ReversibleModel)
    fused = workload.model.implementation == "fused"
    return plain and not fused and not any(known.matches(workload) for known in known_profiles)


def _candidates(
    workload: Workload, profile: Profile | None, known_profiles: Sequence[Profile]
) -> list[Candidate]:
    if workload.gradient_sparsity is not None:
        require_sparse_cells(workload, workload.gradient_sparsity)
    if profile is not None:
        return profiled_candidates(workload, profile)
    for known in known_profiles:
        if known.matches(workload):
            return profiled_candidates(workload, known)
    if workload.gradient_sparsity is not None:
        return sparse_candidates(workload, workload.gradient_sparsity)
    if workload.model.implementation == "fused":
        raise ProfileNeeded
    if isinstance(workload.model, ReversibleModel):
        return reversible_candidates(workload, workload.model)
    return step_candidates(workload)
