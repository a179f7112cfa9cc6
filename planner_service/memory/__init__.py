"""From a model's description to its byte ledger and chains. Pure: numpy and `chain` only."""

from planner_service.memory.candidate import Candidate, CostUnit, Source, StageSources
from planner_service.memory.candidates import candidates_for, is_counted
from planner_service.memory.ledger import Exactness, LedgerLine, total_bytes
from planner_service.memory.model import RecurrentModel
from planner_service.memory.profile import (
    Profile,
    ProfileMismatch,
    ProfileNeeded,
    profile_from_record,
    profile_record,
)
from planner_service.memory.segment_lengths import segment_lengths
from planner_service.memory.shipped import shipped_profiles
from planner_service.memory.steps import (
    BACKWARD_RATIO,
    SegmentBytes,
    SegmentedSteps,
    StepOutlines,
    step_outlines,
)
from planner_service.memory.workload import Workload

__all__ = [
    "BACKWARD_RATIO",
    "Candidate",
    "CostUnit",
    "Exactness",
    "LedgerLine",
    "Profile",
    "ProfileMismatch",
    "ProfileNeeded",
    "RecurrentModel",
    "SegmentBytes",
    "SegmentedSteps",
    "Source",
    "StageSources",
    "StepOutlines",
    "Workload",
    "candidates_for",
    "is_counted",
    "profile_from_record",
    "profile_record",
    "segment_lengths",
    "shipped_profiles",
    "step_outlines",
    "total_bytes",
]
