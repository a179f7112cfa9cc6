"""Where a job fits: holes of a cluster against what a job needs. Pure: no I/O, clock or environment.

Nothing is assigned here. Every hole is answered as if it were the only one; schedulers decide.
"""

from planner_service.placement.acceptable import AcceptableType, acceptable_types
from planner_service.placement.curve import Curve
from planner_service.placement.holes import (
    DEFAULT_CONTEXT_BYTES,
    DEFAULT_DRIVER_RESERVE_RATIO,
    Hole,
    TypeNames,
)
from planner_service.placement.offers import Demand, Offer, RankBy, Unfit, offers_of
from planner_service.placement.site import Site
from planner_service.placement.wanted import Wanted
from planner_service.placement.words import SchedulerWords, words_of

__all__ = [
    "DEFAULT_CONTEXT_BYTES",
    "DEFAULT_DRIVER_RESERVE_RATIO",
    "AcceptableType",
    "Curve",
    "Demand",
    "Hole",
    "Offer",
    "RankBy",
    "SchedulerWords",
    "Site",
    "TypeNames",
    "Unfit",
    "Wanted",
    "acceptable_types",
    "offers_of",
    "words_of",
]
