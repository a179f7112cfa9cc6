"""A worker: plans a job, trains under the plan, and reports what it measured.

The order matters: the gradients are checked before anything is learned, and the peak is measured on an
iteration of its own, since measuring slows an iteration down.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import backward

from executor.jobs.computed_peak import computed_peak_bytes
from executor.jobs.job import PYTHON_TEXT, Job
from executor.jobs.kept import require_apart, require_writable, written
from executor.jobs.models import Window
from executor.jobs.prepared import PreparedJob, Progress
from executor.jobs.ranks import Forward, Ranks
from executor.jobs.report import RunReport, SegmentCounts
from executor.jobs.slowdown import require_quick
from executor.jobs.training import PlannedLoss, both_passes, iterate, optimizer_for
from executor.measure import Measurement, measure
from executor.memory.device import device_name
from executor.offload.slots import HOST
from executor.plan import ExecutionPlan, checkpoint_every, undo_every
from executor.planner import RemotePlanner, simulated_in_process
from executor.verify import GradientCheck, compare_gradients, gradients_of
from planner_service.chain.quantities import format_bytes

IN_PROCESS = "in process"


def run_job(
    job: Job,
    *,
    name: str,
    planner_url: str | None = None,
    output: Path | None = None,
    progress: Progress = lambda _line: None,
) -> RunReport:
    """Plan and train `job`; write its weights and report files, and post the report to the planner.

    `output` is where the report goes, whatever the job says. Under torchrun every process calls this; the
    first one writes and posts, what it reports holds for all of them.

    Raises InvalidJob, BudgetTooSmall, SlowdownTooGreat, and PlannerUnreachable or PlannerRefused for a
    planner by URL.
    """
    if output is None and job.report.output is not None:
        output = Path(job.report.output)
    files = {"report.output": output, "report.weights": job.report.weights}
    require_writable(files)
    text = None if job.data.text == PYTHON_TEXT else job.data.text
    require_apart({"data.text": text, **files})
    ranks = Ranks.from_environ(os.environ)
    with ExitStack() as stack:
        planner = None if planner_url is None else stack.enter_context(closing(RemotePlanner(planner_url)))
        share = ranks.share(job)
        streams = ranks.streams(job)
        stack.enter_context(ranks.joined())
        prepared = PreparedJob.of(
            share, progress, ranks.device(), device_bytes=ranks.device_bytes(), streams=streams
        )
        plan, plan_id = prepared.plan(planner)
        require_quick(prepared, plan, job.maximum_slowdown_ratio)
        progress(describe_plan(plan))
        where = planner_url or IN_PROCESS
        report = _train(prepared, plan, plan_id, ranks=ranks, name=name, planner=where, progress=progress)
        simulate = simulated_in_process if planner is None else planner.simulated_peak_bytes
        report = dataclasses.replace(
            report,
            description=job.record(),  # the whole job, not this share of it
            computed_peak_bytes=computed_peak_bytes(prepared, plan, simulate),
        )
        if not ranks.is_first:
            return report
        report = written(report, prepared, output, progress)
        if planner is not None:
            planner.post_measurement(report.measurement())
            progress(f"measurement posted to {planner_url}")
    return report


def _train(
    prepared: PreparedJob,
    plan: ExecutionPlan,
    plan_id: str | None,
    *,
    ranks: Ranks,
    name: str,
    planner: str,
    progress: Progress,
) -> RunReport:
    job, model = prepared.job, prepared.model
    forward = ranks.forward(prepared.loss)
    check = check_gradients(prepared, plan)
    if check is not None:
        progress(str(check))
    measured, executed = measured_iteration(prepared, plan, forward)
    peaks = tuple(int(peak) for (peak,) in ranks.gathered([measured.peak_bytes]))
    measured_peak_bytes = max(peaks)
    progress(f"measured peak: {format_bytes(measured_peak_bytes)} of {format_bytes(prepared.budget_bytes)}")
    evaluation = Window.of(prepared.streams.evaluation_window())
    loss_before = model.evaluate(evaluation)
    losses, seconds = _iterations(prepared, plan, forward, progress)
    loss_before, loss_after = ranks.mean([loss_before, model.evaluate(evaluation)])
    return RunReport(
        job=name,
        description=job.record(),
        planner=planner,
        plan_id=plan_id,
        strategy=plan.strategy,
        segment_steps=plan.segment_steps,
        segment_count=plan.policy.length,
        planned=planned_counts(plan),
        executed=executed,
        budget_bytes=prepared.budget_bytes,
        projected_peak_bytes=plan.projected_peak_bytes or 0,
        measured_peak_bytes=measured_peak_bytes,
        host_budget_bytes=job.host_budget_bytes,
        measured_host_bytes=measured.tier_peak_bytes.get(HOST, 0),
        archived_bytes=measured.archived_bytes,
        iteration_seconds=tuple(seconds),
        losses=tuple(ranks.mean(losses)),
        loss_before=loss_before,
        loss_after=loss_after,
        process_peak_bytes=peaks,
        gradient_check=check,
        gradient_sparsity=None if prepared.audit is None else prepared.audit.measurement(),
        torch=torch.__version__,
        device=device_name(prepared.loss.device),
    )


def _iterations(
    prepared: PreparedJob, plan: ExecutionPlan, forward: Forward, progress: Progress
) -> tuple[list[float], list[float]]:
    """Losses and seconds of the job's iterations."""
    optimizer = optimizer_for(prepared.model, prepared.job.training)
    if prepared.audit is not None:
        prepared.audit.start(iteration=0)
    losses, seconds = [], []
    count = prepared.job.training.iterations
    for iteration in range(count):
        window = Window.of(prepared.streams.window(iteration))
        begin = time.perf_counter()
        losses.append(iterate(partial(forward, window, plan), optimizer, prepared.audit))
        seconds.append(time.perf_counter() - begin)
        progress(f"iteration {iteration + 1}/{count}: loss {losses[-1]:.3f}, {seconds[-1]:.2f} s")
    return losses, seconds


def measured_iteration(
    prepared: PreparedJob, plan: ExecutionPlan, forward: Forward | None = None
) -> tuple[Measurement[None], SegmentCounts]:
    """Peak bytes of one forward and backward pass, and how often it ran segments. Nothing is learned. Where
    gradients are sparsified, the comparison with the dense one, if it is due, is part of the peak.

    `forward` is that of `Ranks`; None: of one process.
    """
    window, run = prepared.window, forward or prepared.loss.forward
    prepared.loss.prepare(window)

    def loss_of() -> Tensor:
        prepared.loss.take_counts()  # those of a comparison are no part of the plan
        return run(window, plan)

    def passes() -> None:
        both_passes(loss_of, prepared.model.zero_grad, prepared.audit)

    measured = measure(passes, device=prepared.loss.device)
    prepared.model.zero_grad(set_to_none=True)
    return measured, prepared.loss.take_counts()


def check_gradients(prepared: PreparedJob, plan: ExecutionPlan) -> GradientCheck | None:
    """Compare gradients with those of plain full BPTT, in float64, over the job's first few steps.

    The sequence is cut into at least five segments, and every other state is a checkpoint, so that all
    that a plan can ask for is done: pairs of segments are undone where the plan undoes any. None when
    the job leaves the check out, or sparsifies its gradients: these are not those of full BPTT.
    """
    steps = min(prepared.job.report.gradient_check_steps, prepared.job.sequence.length)
    if not steps or prepared.audit is not None:
        return None
    model = copy.deepcopy(prepared.model).double()
    window = Window(*(indices[:steps] for indices in prepared.window))
    segment_steps = max(1, min(plan.segment_steps, steps // 5))
    backward(model.full_loss(window, segment_steps=segment_steps))
    expected = gradients_of(model)
    model.zero_grad(set_to_none=True)
    loss = PlannedLoss(model, length=steps, batch_size=prepared.job.sequence.batch_size)
    every = undo_every if plan.undoes else checkpoint_every
    tapes = plan.host_tapes
    if tapes is not None:  # numbers twice as wide, and kernels of torch's, which may keep more
        tapes = dataclasses.replace(tapes, slot_bytes=4 * tapes.slot_bytes)
    backward(loss.forward(window, dataclasses.replace(every(steps, segment_steps, 2), host_tapes=tapes)))
    return compare_gradients(expected, gradients_of(model), steps=steps)


def planned_counts(plan: ExecutionPlan) -> SegmentCounts:
    """How often the plan runs segments in one iteration."""
    return SegmentCounts.of(plan.schedule(), archives_tapes=plan.host_tapes is not None)


def describe_plan(plan: ExecutionPlan) -> str:
    """The plan in one line."""
    counts = planned_counts(plan)
    again = sum(counts) - plan.policy.length
    projected = format_bytes(plan.projected_peak_bytes or 0)
    segments = f"{plan.policy.length} segments of {plan.segment_steps} steps, {again} of them run again"
    return f"plan: {plan.strategy}, {segments}, projected peak {projected}"
