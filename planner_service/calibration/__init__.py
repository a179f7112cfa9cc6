"""What measurements teach: from residuals to profiles that bound them. Pure: `memory` and `chain` only.

Two kinds of residuals. A *probe* measures the stages of one model: its ratios to the formulas of `memory`
carry over to models of other sizes (`stage_ratios`). A *run* measures one peak: its ratio to what was
projected tells whether the stages add up (`margins`). Both are kept per cell, implementation, dtype, segment
length and device, and both only ever enter as the largest that was seen, so that no calibrated plan projects
less than a measurement that it was calibrated on.
"""

from planner_service.calibration.coverage import Coverage
from planner_service.calibration.errors import StageError, stage_errors
from planner_service.calibration.estimate import estimated_profile
from planner_service.calibration.margins import Margin, PeakResidual, margins_of, with_margins
from planner_service.calibration.stage_ratios import (
    StageRatios,
    computed_stage,
    family_ratios,
    stage_ratios,
    workload_of,
)

__all__ = [
    "Coverage",
    "Margin",
    "PeakResidual",
    "StageError",
    "StageRatios",
    "computed_stage",
    "estimated_profile",
    "family_ratios",
    "margins_of",
    "stage_errors",
    "stage_ratios",
    "with_margins",
    "workload_of",
]
