"""Pictures of frontiers and timelines as SVG or PNG. matplotlib is loaded only when one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from planner_service.chain import PlanningError
from planner_service.chain.quantities import format_bytes
from planner_service.contract import FrontierReply, SimulationReply

SUFFIXES = (".svg", ".png")
_SIZE_INCHES = (8.0, 4.5)
_METADATA: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".png": {"Software": None}}


class NoPicture(PlanningError):
    """A picture cannot be drawn or written; the message says what to do."""


def require_picture(path: Path | None) -> None:
    """Refuse one at `path` that could not be drawn before anything is computed for it. Raises NoPicture."""
    if path is not None:
        _axes(path)


def frontier_picture(reply: FrontierReply, path: Path) -> None:
    """Write makespan over bytes, with the knee and full BPTT marked. Raises NoPicture."""
    axes = _axes(path)
    points = reply.points
    bytes_ = [point.budget_bytes for point in points]
    axes.step(bytes_, [point.makespan for point in points], where="post", marker="o", markersize=3)
    axes.plot([reply.knee.budget_bytes], [reply.knee.makespan], "o", label="knee")
    axes.axhline(reply.store_all_makespan, linestyle=":", label="full BPTT")
    axes.set_yscale("log")
    if not reply.exact_gradient:
        axes.set_title("gradients are inexact")
    axes.set_xlabel("peak")
    axes.set_ylabel(f"makespan ({reply.unit})")
    axes.xaxis.set_major_formatter(lambda value, _: format_bytes(int(value)))
    axes.legend()
    _save(axes, path)


def timeline_picture(reply: SimulationReply, path: Path, *, budget_bytes: int | None) -> None:
    """Write peak bytes over elapsed cost, with the budget where there is one. Raises NoPicture."""
    axes = _axes(path)
    elapsed = [point.elapsed_cost for point in reply.timeline]
    axes.plot(elapsed, [point.peak_bytes for point in reply.timeline], label="peak while running")
    axes.plot(elapsed, [point.live_bytes for point in reply.timeline], label="live afterwards")
    if budget_bytes is not None:
        axes.axhline(budget_bytes, linestyle="--", color="black", label="budget")
    axes.set_xlabel(f"elapsed cost ({reply.unit})")
    axes.set_ylabel("bytes")
    axes.yaxis.set_major_formatter(lambda value, _: format_bytes(int(value)))
    axes.legend()
    _save(axes, path)


def _axes(path: Path) -> Any:
    """Empty axes, not shown anywhere."""
    if path.suffix not in SUFFIXES:
        raise NoPicture(f"{path}: a picture is written as {' or '.join(SUFFIXES)}, by the file's suffix")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPicture("pictures need matplotlib: pip install matplotlib") from None
    return Figure(figsize=_SIZE_INCHES, layout="constrained").add_subplot()


def _save(axes: Any, path: Path) -> None:
    try:
        axes.figure.savefig(path, metadata=_METADATA[path.suffix])
    except OSError as error:
        raise NoPicture(f"{path}: cannot be written: {error.strerror}") from None
