"""Training in a budget next to full BPTT: the figures, the table, and whether the promises were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from executor.verify import GradientCheck
from planner_service.chain.quantities import format_bytes


class Trained(NamedTuple):
    """One of the two training runs."""

    seconds: float
    """Median time of an iteration."""
    loss_before: float
    loss_after: float


@dataclass(frozen=True)
class Outcome:
    """What the table shows."""

    activation_bytes: int
    budget_bytes: int
    projected_peak_bytes: int
    measured_peak_bytes: int
    full_peak_bytes: int
    planned: Trained
    full: Trained
    at_full_length: GradientCheck
    """In the job's dtype, over the whole sequence and batch."""
    in_float64: GradientCheck | None
    plan: str

    def broken_promises(self) -> list[str]:
        """What makes the demonstration fail, one sentence each."""
        broken = []
        if self.measured_peak_bytes > self.budget_bytes:
            broken.append(f"measured {self.measured_peak_bytes} bytes in a budget of {self.budget_bytes}")
        if self.measured_peak_bytes > self.projected_peak_bytes:
            broken.append(f"measured {self.measured_peak_bytes} bytes, projected {self.projected_peak_bytes}")
        checks = [self.at_full_length, self.in_float64]
        broken += [str(check) for check in checks if check is not None and not check.passed]
        if not self.planned.loss_after < self.planned.loss_before:
            broken.append(f"the loss did not fall: {self.planned.loss_before} to {self.planned.loss_after}")
        return broken

    def record(self) -> dict[str, Any]:
        """The outcome for the JSON file."""
        return {
            "activation_bytes": self.activation_bytes,
            "budget_bytes": self.budget_bytes,
            "projected_peak_bytes": self.projected_peak_bytes,
            "measured_peak_bytes": self.measured_peak_bytes,
            "full_bptt_peak_bytes": self.full_peak_bytes,
            "utilization_ratio": self.measured_peak_bytes / self.budget_bytes,
            "time_ratio": self.planned.seconds / self.full.seconds,
            "planned": self.planned._asdict(),
            "full_bptt": self.full._asdict(),
            "gradient_check": self.at_full_length.record(),
            "gradient_check_float64": None if self.in_float64 is None else self.in_float64.record(),
            "plan": self.plan,
            "broken_promises": self.broken_promises(),
        }

    def table(self) -> str:
        """The one table."""
        planned, full = self.planned, self.full
        share = 100 * self.budget_bytes / self.activation_bytes
        rows = [
            ("", "tightfit", "full BPTT"),
            ("budget", format_bytes(self.budget_bytes), "none"),
            ("  share of the activations", f"{share:.1f} %", "100 %"),
            ("projected peak", format_bytes(self.projected_peak_bytes), ""),
            ("measured peak", format_bytes(self.measured_peak_bytes), format_bytes(self.full_peak_bytes)),
            ("  share of full BPTT's", f"{100 * self.measured_peak_bytes / self.full_peak_bytes:.1f} %", ""),
            ("utilization of the budget", f"{100 * self.measured_peak_bytes / self.budget_bytes:.1f} %", ""),
            ("time per iteration", f"{planned.seconds:.2f} s", f"{full.seconds:.2f} s"),
            ("  ratio", f"{planned.seconds / full.seconds:.2f}", "1.00"),
            *self._gradient_rows(),
            ("loss before", f"{planned.loss_before:.3f}", f"{full.loss_before:.3f}"),
            ("loss after", f"{planned.loss_after:.3f}", f"{full.loss_after:.3f}"),
        ]
        return _three_columns(rows)

    def _gradient_rows(self) -> list[tuple[str, str, str]]:
        checks = [self.at_full_length, *([] if self.in_float64 is None else [self.in_float64])]
        differences = [f"{check.largest_relative_difference:.1e}" for check in checks]
        rows = [("largest gradient difference", "", "")]
        rows += [
            (f"  {check.dtype}, {check.steps:,} steps", difference, "")
            for check, difference in zip(checks, differences, strict=True)
        ]
        return rows


def _three_columns(rows: Sequence[tuple[str, str, str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rule = "-" * (sum(widths) + 4)
    lines = [f"{name:<{widths[0]}}  {left:>{widths[1]}}  {right:>{widths[2]}}" for name, left, right in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
