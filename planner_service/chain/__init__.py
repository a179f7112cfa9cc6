"""Vocabulary of the project: stages, chains, actions, policies, schedules, and the judge.

Standard library only; nothing here does I/O.
"""

from planner_service.chain.actions import (
    Action,
    Advance,
    Archive,
    Backward,
    Free,
    Tape,
    Undo,
    action_from_record,
    action_record,
    describe,
)
from planner_service.chain.chain import Chain, RunPart, StageRun, merge_runs, without_reversals
from planner_service.chain.errors import BudgetTooSmall, InvalidChain, PlanningError
from planner_service.chain.policy import (
    EMPTY,
    ArchiveNode,
    CheckpointNode,
    Policy,
    PolicyNode,
    TapeNode,
    policy_from_record,
)
from planner_service.chain.schedule import expand
from planner_service.chain.segments import segment_sizes, segmented_chain
from planner_service.chain.simulator import Moment, moments, simulate
from planner_service.chain.stage import MAXIMUM_BYTES, Reversal, Stage, stage_from_record, stage_record
from planner_service.chain.tiers import DEVICE, Tier
from planner_service.chain.tiers_actions import (
    Discard,
    Fetch,
    Move,
    Store,
    TieredAction,
    tiered_action_from_record,
    tiered_action_record,
)
from planner_service.chain.tiers_policy import TieredPolicy, expand_tiers, tiered_policy_from_record
from planner_service.chain.tiers_simulator import (
    TieredVerdict,
    TierUse,
    TimedMoment,
    simulate_tiers,
    timed_moments,
)
from planner_service.chain.verdict import IllegalAction, IllegalSchedule, Verdict

__all__ = [
    "DEVICE",
    "EMPTY",
    "MAXIMUM_BYTES",
    "Action",
    "Advance",
    "Archive",
    "ArchiveNode",
    "Backward",
    "BudgetTooSmall",
    "Chain",
    "CheckpointNode",
    "Discard",
    "Fetch",
    "Free",
    "IllegalAction",
    "IllegalSchedule",
    "InvalidChain",
    "Moment",
    "Move",
    "PlanningError",
    "Policy",
    "PolicyNode",
    "Reversal",
    "RunPart",
    "Stage",
    "StageRun",
    "Store",
    "Tape",
    "TapeNode",
    "Tier",
    "TierUse",
    "TieredAction",
    "TieredPolicy",
    "TieredVerdict",
    "TimedMoment",
    "Undo",
    "Verdict",
    "action_from_record",
    "action_record",
    "describe",
    "expand",
    "expand_tiers",
    "merge_runs",
    "moments",
    "policy_from_record",
    "segment_sizes",
    "segmented_chain",
    "simulate",
    "simulate_tiers",
    "stage_from_record",
    "stage_record",
    "tiered_action_from_record",
    "tiered_action_record",
    "tiered_policy_from_record",
    "timed_moments",
    "without_reversals",
]
