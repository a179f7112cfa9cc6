"""Adds to a probe what the tapes of segments take beside the device, where there is host memory for them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from executor.errors import PlanMismatch
from executor.loop import Loop
from executor.memory.trace import paused
from executor.offload.tape_costs import with_tapes_on_host
from executor.probe_report import ProbeReport, SegmentProbe
from executor.probing.rehearsal import without_traces
from executor.rules.needs import Needs
from executor.rules.saved_tensor_hooks import without_saved_tensor_hooks


def beside_host_memory(
    loop: Loop, report: ProbeReport, budget_bytes: int, host_budget_bytes: int
) -> ProbeReport:
    """`report`, its stages with what their tapes take in `host_budget_bytes` of host memory.

    Left as they are: segments of which two tapes would exceed `budget_bytes` while this is measured, those of
    loops that reversible layers undo, whose steps take different bytes or leave tensors behind, and those
    that host memory has no room for.
    """
    if report.needs.lost is not None or report.steps_differ or any(s.left_bytes for s in report.segments):
        return report
    with paused(), without_saved_tensor_hooks(), without_traces(loop):
        segments = tuple(
            _beside_host_memory(loop, report.needs, segment, budget_bytes, host_budget_bytes)
            for segment in report.segments
        )
    return replace(report, segments=segments)


def _beside_host_memory(
    loop: Loop, needs: Needs, segment: SegmentProbe, budget_bytes: int, host_budget_bytes: int
) -> SegmentProbe:
    inner = segment.inner
    expected_bytes = segment.rehearsal_peak_bytes + inner.tape_bytes + inner.state_bytes
    if segment.host_tapes is not None or expected_bytes > budget_bytes:
        return segment
    found = None
    # What a stage keeps changes from one time to the next, or it runs what saved-tensor hooks cannot enter
    # (transforms of torch.func): then its tapes stay.
    with suppress(PlanMismatch, RuntimeError):
        found = with_tapes_on_host(
            segment.stages(loop.inputs.length),
            loop,
            needs,
            segment.segment_steps,
            input_gradient_bytes=segment.input_gradient_bytes,
            device_budget_bytes=budget_bytes,
            host_budget_bytes=host_budget_bytes,
        )
    if found is None:
        return segment
    measured, tapes = found
    return replace(
        segment, first=measured[0], inner=measured[len(measured) // 2], last=measured[-1], host_tapes=tapes
    )
