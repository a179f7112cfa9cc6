"""What an attempt measures, beside what was projected: bytes three ways, seconds per kind of action."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import backward

from executor.attempt.action_times import ActionTimes
from executor.attempt.planning import StoredPlan, peak_by_formulas
from executor.attempt.task import Task
from executor.jobs.prepared import PreparedJob
from executor.jobs.report import SegmentCounts
from executor.memory.device import device_name, driver_version, free_bytes
from executor.offload.slots import HOST
from executor.plan import ExecutionPlan
from executor.worker import measured_iteration, planned_counts

RECORDED_BYTES = 2**19
"""At most, of what is recorded of a step of a layer that runs: some hundreds of allocations and releases."""
_KIB = 1 if sys.platform == "darwin" else 1024
"""The unit of the kernel's high-water mark."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One iteration that learned nothing, measured twice: its bytes, then its seconds."""

    peak_bytes: int
    """Tensors that it added at its peak: every allocation on the CPU, the allocator's peak on CUDA."""
    reserved_bytes: int
    """What the process reserved for tensors at most: CUDA's caching allocator; on the CPU, which reserves
    nothing, the peak again."""
    device_bytes: int
    """What the device had given away: CUDA's own count, all processes included; on the CPU the resident
    memory of this process at its highest."""
    host_bytes: int
    """Host memory that held moved states, at its peak."""
    archived_bytes: int | None
    """What the archives of reversible layers held of it, exactly; None where nothing was undone."""
    counts: SegmentCounts
    seconds: dict[str, float | None]
    """Means per segment of each kind of action."""
    pass_seconds: float
    """One forward and backward, watched action by action."""

    @classmethod
    def of(cls, prepared: PreparedJob, plan: ExecutionPlan) -> Measured:
        """Measure; the model is as it was. Bytes are counted first, with the books of sparsified gradients,
        and seconds in a second pass.
        """
        window, loss, device = prepared.window, prepared.loss, prepared.loss.device
        measured, counts = measured_iteration(prepared, plan)
        times = ActionTimes(device)
        begin = time.perf_counter()
        backward(loss.forward(window, plan, times))
        pass_seconds = time.perf_counter() - begin
        loss.take_counts()
        prepared.model.zero_grad(set_to_none=True)
        return cls(
            peak_bytes=measured.peak_bytes,
            reserved_bytes=_reserved_bytes(device, measured.peak_bytes),
            device_bytes=_device_bytes(device),
            host_bytes=measured.tier_peak_bytes.get(HOST, 0),
            archived_bytes=measured.archived_bytes,
            counts=counts,
            seconds=times.record(),
            pass_seconds=pass_seconds,
        )


def recording_bytes(prepared: PreparedJob, plan: ExecutionPlan) -> int:
    """Room for the recording of every allocation, which on the CPU is memory of this very process and no part
    of the training, in bytes; no more than half of what the machine has free. Where segments run again some
    thousand times it takes gigabytes. 0 on CUDA, whose allocator counts by itself.
    """
    device = prepared.loss.device
    if device.type != "cpu":
        return 0
    steps = sum(planned_counts(plan)) * plan.segment_steps * prepared.job.model.num_layers
    return min(RECORDED_BYTES * steps, free_bytes(device) // 2)


def measurement_of(task: Task, prepared: PreparedJob, plan: StoredPlan, measured: Measured) -> dict[str, Any]:
    """The measurement as the service takes it, before the first iteration (POST /v1/measurements)."""
    model, sequence = prepared.job.model, prepared.job.sequence
    device = prepared.loss.device
    return {
        "job": task.name,
        "job_id": task.job_id,
        "attempt": task.number,
        "plan_id": plan.plan_id,
        "budget_bytes": prepared.budget_bytes,
        "projected_peak_bytes": plan.plan.projected_peak_bytes or 0,
        "computed_peak_bytes": peak_by_formulas(prepared, task, plan.plan),
        "measured_peak_bytes": measured.peak_bytes,
        "measured_reserved_bytes": measured.reserved_bytes,
        "measured_device_bytes": measured.device_bytes,
        **({} if measured.archived_bytes is None else {"archived_bytes": measured.archived_bytes}),
        **_host(prepared, measured),
        **({} if prepared.audit is None else {"exact_gradient": False}),
        "advance_count": measured.counts.advance_count,
        "tape_count": measured.counts.tape_count,
        **measured.seconds,
        "seconds_per_iteration": measured.pass_seconds,
        "iterations": 1,
        "losses": [],
        "cell": model.kind,
        "dtype": model.dtype,
        "implementation": "fused",
        "hidden_size": model.hidden_size,
        "num_layers": model.num_layers,
        "sequence_length": sequence.length,
        "batch_size": sequence.batch_size,
        "segment_steps": plan.plan.segment_steps,
        "strategy": plan.plan.strategy,
        "torch": torch.__version__,
        "device": device_name(device),
        "driver": driver_version(device),
    }


def _host(prepared: PreparedJob, measured: Measured) -> dict[str, Any]:
    budget_bytes = prepared.job.host_budget_bytes
    if budget_bytes is None:
        return {}
    return {"host_budget_bytes": budget_bytes, "measured_host_bytes": measured.host_bytes}


def _reserved_bytes(device: torch.device, peak_bytes: int) -> int:
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_bytes


def _device_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(total - free)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
