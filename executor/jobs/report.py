"""What a worker reports of one training run: what the plan projected next to what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from executor.verify import GradientCheck
from planner_service.chain import Advance, Archive, Move, Tape, TieredAction, Undo
from planner_service.chain.quantities import format_bytes


class SegmentCounts(NamedTuple):
    """How often segments were run forward in one iteration."""

    advance_count: int
    """Without a tape."""
    tape_count: int
    """With a tape."""

    @classmethod
    def of(cls, actions: Iterable[TieredAction], *, archives_tapes: bool = False) -> SegmentCounts:
        """The counts that `actions` amount to; what they archive are lost bits, or else tapes."""
        advanced = taped = 0
        for each in actions:
            if isinstance(each, Tape) or (archives_tapes and isinstance(each, Archive)):
                taped += each.last - each.first + 1
            elif isinstance(each, Advance | Move | Archive):
                advanced += each.last - each.first + 1
            elif isinstance(each, Undo) and not archives_tapes:  # from its bits, a segment's tape is computed
                taped += each.first - each.last + 1
        return cls(advanced, taped)


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One training run under a plan."""

    job: str
    """The job's name."""
    description: dict[str, object]
    """The job itself."""
    planner: str
    """Where the plan comes from: a URL, or `in process`."""
    plan_id: str | None
    """The plan's id at the service."""
    strategy: str
    segment_steps: int
    segment_count: int
    planned: SegmentCounts
    """What the plan says of one iteration."""
    executed: SegmentCounts
    """What one iteration did."""
    budget_bytes: int
    projected_peak_bytes: int
    measured_peak_bytes: int
    computed_peak_bytes: int | None = None
    """What the formulas alone project of the plan, before anything was probed; None where they do not."""
    process_peak_bytes: tuple[int, ...] = ()
    """Of every process that trained together; the measured peak is the largest."""
    host_budget_bytes: int | None = None
    """Host memory that states could move to."""
    measured_host_bytes: int = 0
    """Host memory that held them, at its peak; pinned on CUDA."""
    archived_bytes: int | None = None
    """What the archives of reversible layers held at most in one iteration, exactly; the plan's ledger has a
    bound of it. None: nothing was undone."""
    iteration_seconds: tuple[float, ...]
    losses: tuple[float, ...]
    """Mean loss per character of every iteration, in nats."""
    loss_before: float
    """On the evaluation window, before the first iteration."""
    loss_after: float
    gradient_check: GradientCheck | None
    gradient_sparsity: dict[str, Any] | None = None
    """What was dropped of the gradient, iteration by iteration; None: it is exact."""
    torch: str
    """Version."""
    device: str
    unwritten: tuple[str, ...] = ()
    """What the job wanted kept and was not, and why."""

    @property
    def utilization_ratio(self) -> float:
        """Measured peak over budget."""
        return self.measured_peak_bytes / self.budget_bytes

    @property
    def seconds_per_iteration(self) -> float:
        """Median over the iterations."""
        return statistics.median(self.iteration_seconds)

    @property
    def broken_promises(self) -> list[str]:
        """What the run did not keep, one sentence each; empty when all is well."""
        broken = []
        if self.measured_peak_bytes > self.budget_bytes:
            over = self.measured_peak_bytes - self.budget_bytes
            broken.append(f"the measured peak exceeds the budget by {over} bytes")
        if self.measured_host_bytes > (self.host_budget_bytes or 0):
            over = self.measured_host_bytes - (self.host_budget_bytes or 0)
            broken.append(f"the measured host memory exceeds its budget by {over} bytes")
        if self.gradient_check is not None and not self.gradient_check.passed:
            broken.append(str(self.gradient_check))
        if self.executed != self.planned:
            broken.append(f"the plan has {self.planned}, one iteration did {self.executed}")
        broken += self.unwritten
        return broken

    def measurement(self) -> dict[str, Any]:
        """The report as the service keeps it (`POST /v1/measurements`)."""
        check = self.gradient_check
        return {
            "job": self.job,
            "plan_id": self.plan_id,
            "budget_bytes": self.budget_bytes,
            "projected_peak_bytes": self.projected_peak_bytes,
            "measured_peak_bytes": self.measured_peak_bytes,
            "computed_peak_bytes": self.computed_peak_bytes,
            "seconds_per_iteration": self.seconds_per_iteration,
            "iterations": len(self.iteration_seconds),
            "losses": [_finite(loss) for loss in self.losses],
            "gradient_check": None if check is None else check.record(),
            "torch": self.torch,
            "device": self.device,
            "loss_before": _finite(self.loss_before),
            "loss_after": _finite(self.loss_after),
            "advance_count": self.executed.advance_count,
            "tape_count": self.executed.tape_count,
            **self._archived(),
            **self._sparsity(),
        }

    def _errors(self) -> str:
        after = f"{error_ratio(self.projected_peak_bytes, self.measured_peak_bytes)} after the probe"
        if self.computed_peak_bytes is None:
            return after
        before = error_ratio(self.computed_peak_bytes, self.measured_peak_bytes)
        return f"{before} by formulas alone, {after}"

    def _archived(self) -> dict[str, Any]:
        return {} if self.archived_bytes is None else {"archived_bytes": self.archived_bytes}

    def _sparsity(self) -> dict[str, Any]:
        if self.gradient_sparsity is None:
            return {}
        return {"exact_gradient": False, "gradient_sparsity": self.gradient_sparsity}

    def record(self) -> dict[str, Any]:
        """The whole report, for the JSON file."""
        return {
            **self.measurement(),
            "utilization_ratio": self.utilization_ratio,
            "process_peak_bytes": list(self.process_peak_bytes),
            "host_budget_bytes": self.host_budget_bytes,
            "measured_host_bytes": self.measured_host_bytes,
            "iteration_seconds": list(self.iteration_seconds),
            "plan": {
                "planner": self.planner,
                "strategy": self.strategy,
                "segment_steps": self.segment_steps,
                "segment_count": self.segment_count,
                **self.planned._asdict(),
            },
            "broken_promises": self.broken_promises,
            "description": self.description,
        }

    def table(self) -> str:
        """The report for people."""
        rows = [
            ("budget", format_bytes(self.budget_bytes)),
            ("projected peak", format_bytes(self.projected_peak_bytes)),
            ("measured peak", format_bytes(self.measured_peak_bytes)),
            ("error of the projection", self._errors()),
            ("utilization", f"{100 * self.utilization_ratio:.1f} %"),
            ("plan", f"{self.strategy}, {self.segment_count} segments of {self.segment_steps} steps"),
            ("recomputed segments", str(sum(self.executed) - self.segment_count)),
            ("time per iteration", f"{self.seconds_per_iteration:.2f} s"),
            ("loss before / after", f"{self.loss_before:.3f} / {self.loss_after:.3f} nats per character"),
        ]
        if self.host_budget_bytes is not None:
            moved = f"{format_bytes(self.measured_host_bytes)} of {format_bytes(self.host_budget_bytes)}"
            rows.insert(3, ("host memory", moved))
        if self.archived_bytes is not None:
            rows.insert(3, ("of it lost bits", format_bytes(self.archived_bytes)))
        if self.gradient_sparsity is not None:
            rows.append(("gradients", sparsity_line(self.gradient_sparsity)))
        if self.gradient_check is not None:
            rows.append(("gradients", str(self.gradient_check)))
        return aligned(rows)


def error_ratio(projected_bytes: int, measured_bytes: int) -> str:
    """How far a projection is off what was measured, with its sign: above 0 it was a bound."""
    return f"{100 * (projected_bytes / max(1, measured_bytes) - 1):+.2f} %"


def sparsity_line(found: dict[str, Any]) -> str:
    """What was dropped of the gradients, in a line."""
    cosine = (
        ""
        if found["least_cosine"] is None
        else f", cosine to the dense ones {found['least_cosine']:.3f} or more"
    )
    saved = f"{found['saved_ratio']:.0%} of all products saved"
    return f"INEXACT by {found['rule']}: {found['sparsity']:.0%} dropped, {saved}{cosine}"


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns of text, the first one padded."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
