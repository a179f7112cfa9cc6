"""The wire, v1: what requests and replies look like. Other programs are written against this."""

from planner_service.contract.comparison import ComparedStrategy, ComparisonReply, ComparisonRequest
from planner_service.contract.frontier import FrontierMemory, FrontierPoint, FrontierReply, FrontierRequest
from planner_service.contract.identity import canonical_json, content_id
from planner_service.contract.layers import Embedding, Head
from planner_service.contract.models import (
    Memory,
    Model,
    RecurrentModel,
    Sequence,
    Training,
)
from planner_service.contract.placement import PlacementReply, PlacementRequest
from planner_service.contract.plan import (
    OFFLOAD,
    PlanCost,
    PlanLedgerLine,
    PlanMemory,
    PlanReply,
    PlanRequest,
)
from planner_service.contract.problem import (
    PROBLEM_MEDIA_TYPE,
    FieldProblem,
    ProblemDocument,
    problem_from_details,
    problem_from_error,
    problem_from_validation,
)
from planner_service.contract.profile import LedgerLineRecord, ProfileRecord, SegmentRecord
from planner_service.contract.question import Question
from planner_service.contract.reversible import ReversibleModel
from planner_service.contract.simulation import (
    IllegalRecord,
    SimulationMemory,
    SimulationReply,
    SimulationRequest,
    TimelinePoint,
)
from planner_service.contract.sparsity import GradientSparsity
from planner_service.contract.stages import ChainModel, ReversalRecord, StageRecord, StageRunRecord
from planner_service.contract.tiers import StorageTier, TierUseRecord, tier_use_records, tiers_of

__all__ = [
    "OFFLOAD",
    "PROBLEM_MEDIA_TYPE",
    "ChainModel",
    "ComparedStrategy",
    "ComparisonReply",
    "ComparisonRequest",
    "Embedding",
    "FieldProblem",
    "FrontierMemory",
    "FrontierPoint",
    "FrontierReply",
    "FrontierRequest",
    "GradientSparsity",
    "Head",
    "IllegalRecord",
    "LedgerLineRecord",
    "Memory",
    "Model",
    "PlacementReply",
    "PlacementRequest",
    "PlanCost",
    "PlanLedgerLine",
    "PlanMemory",
    "PlanReply",
    "PlanRequest",
    "ProblemDocument",
    "ProfileRecord",
    "Question",
    "RecurrentModel",
    "ReversalRecord",
    "ReversibleModel",
    "SegmentRecord",
    "Sequence",
    "SimulationMemory",
    "SimulationReply",
    "SimulationRequest",
    "StageRecord",
    "StageRunRecord",
    "StorageTier",
    "TierUseRecord",
    "TimelinePoint",
    "Training",
    "canonical_json",
    "content_id",
    "problem_from_details",
    "problem_from_error",
    "problem_from_validation",
    "tier_use_records",
    "tiers_of",
]
