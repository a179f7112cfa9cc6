"""The picture of one iteration's memory: what the plan projected, what was measured, the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planner_service.chain.quantities import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BUDGET, _PROJECTED, _MEASURED, _PEAK = "#b3261e", "#c9d7e8", "#1f4e79", "#6b7785"


class ProjectedAction(NamedTuple):
    """One action of the plan."""

    begin_seconds: float
    """Projected time at which it begins."""
    end_seconds: float
    peak_bytes: int
    """Most bytes live while it runs, as the simulator says."""
    is_forward: bool
    """True before the first backward action."""


class MeasuredMoment(NamedTuple):
    """Bytes live at one moment, on the projected clock."""

    at_seconds: float
    live_bytes: int


@dataclass(frozen=True)
class MemoryChart:
    """One iteration under a plan; every list is in order of time."""

    projected: Sequence[ProjectedAction]
    measured: Sequence[MeasuredMoment]
    budget_bytes: int
    full_bptt_peak_bytes: int
    subject: str
    """What was trained, for the title."""

    def save(self, path: Path) -> None:
        """Write the picture as PNG."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(10, 5.2), layout="constrained")
        self._draw(axes)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)

    def _draw(self, axes: Axes) -> None:
        self._draw_projected(axes)
        mebi = 2**20
        axes.plot(
            [moment.at_seconds for moment in self.measured],
            [moment.live_bytes / mebi for moment in self.measured],
            color=_MEASURED,
            linewidth=0.9,
            label=f"measured, peak {format_bytes(max(moment.live_bytes for moment in self.measured))}",
        )
        axes.axhline(
            self.budget_bytes / mebi,
            color=_BUDGET,
            linewidth=1.4,
            label=f"budget {format_bytes(self.budget_bytes)}",
        )
        self._mark_backward(axes)
        axes.set_xlim(0, self.projected[-1].end_seconds)
        axes.set_ylim(0, 1.25 * self.budget_bytes / mebi)
        axes.set_xlabel("projected time in the iteration, seconds")
        axes.set_ylabel("tensor memory added by the iteration, MiB")
        axes.set_title(self._title(), loc="left", fontsize=11)
        axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)

    def _draw_projected(self, axes: Axes) -> None:
        edges = [action.begin_seconds for action in self.projected] + [self.projected[-1].end_seconds]
        peak = max(action.peak_bytes for action in self.projected)
        axes.stairs(
            [action.peak_bytes / 2**20 for action in self.projected],
            edges,
            fill=True,
            color=_PROJECTED,
            label=f"projected, peak {format_bytes(peak)}",
        )

    def _mark_backward(self, axes: Axes) -> None:
        begin = next((action.begin_seconds for action in self.projected if not action.is_forward), None)
        if begin is None:
            return
        axes.axvline(begin, ymax=0.8, color=_PEAK, linewidth=0.8, linestyle=":")  # up to the budget
        axes.annotate(
            "first backward",
            (begin, 0),
            xytext=(4, 6),
            textcoords="offset points",
            fontsize=8,
            color=_PEAK,
        )

    def _title(self) -> str:
        times = self.full_bptt_peak_bytes / self.budget_bytes
        return (
            f"{self.subject}\nfull BPTT peaks at {format_bytes(self.full_bptt_peak_bytes)}, "
            f"{times:.0f} times the budget (off this picture)"
        )
