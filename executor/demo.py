"""The demonstration: a twentieth of the activation memory, the same gradients, next to full BPTT."""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import backward

from executor.jobs.chart import MeasuredMoment, MemoryChart, ProjectedAction
from executor.jobs.comparison import Outcome, Trained
from executor.jobs.job import Job, ModelSpec, SequenceSpec, TrainingSpec
from executor.jobs.models import CharacterModel, Window
from executor.jobs.prepared import PreparedJob, Progress, full_activation_bytes
from executor.jobs.training import iterate, optimizer_for
from executor.measure import measure
from executor.memory.budget import parse_budget
from executor.memory.trace import Recording, mark, record
from executor.plan import ExecutionPlan
from executor.planner import RemotePlanner
from executor.service.process import planning_service
from executor.verify import compare_gradients, gradients_of
from executor.worker import check_gradients, describe_plan
from planner_service.chain import Backward, Policy, TieredAction, expand, moments

JOB = Job(
    model=ModelSpec(kind="lstm", hidden_size=256, embedding_size=64),
    sequence=SequenceSpec(length=1_000, batch_size=32),
    training=TrainingSpec(optimizer="adam", learning_rate=0.005, iterations=8),
    budget=parse_budget("5%"),
)
_DEVICE = torch.device("cpu")
"""Where every allocation can be seen, so that the picture shows them all."""


@dataclass(frozen=True)
class Traced:
    """One iteration under the plan, recorded."""

    peak_bytes: int
    actions: list[TieredAction]
    recording: Recording
    gradients: dict[str, Tensor | None]


def run_demo(output_dir: Path, progress: Progress, job: Job = JOB) -> int:
    """Run the demonstration, write its files into `output_dir`, print the table.

    Returns 0, or 1 when the measured peak exceeds the budget, gradients differ or the loss did not fall.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    progress("starting the planning service")
    with planning_service(output_dir / "service") as url:
        progress(f"{url} is ready")
        planner = RemotePlanner(url)
        prepared = PreparedJob.of(job, progress, _DEVICE)
        plan, plan_id = prepared.plan(planner)
        progress(f"{describe_plan(plan)} ({url}/v1/plans/{plan_id})")
        outcome, chart = _compare(prepared, plan, progress)
        planner.close()
    chart.save(output_dir / "memory.png")
    (output_dir / "demo.json").write_text(json.dumps(outcome.record(), indent=2) + "\n", encoding="utf-8")
    lines = [outcome.table(), "", f"picture: {output_dir / 'memory.png'}"]
    broken = outcome.broken_promises()
    lines += [f"BROKEN PROMISE: {each}" for each in broken]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if broken else 0


def _compare(prepared: PreparedJob, plan: ExecutionPlan, progress: Progress) -> tuple[Outcome, MemoryChart]:
    full_model = copy.deepcopy(prepared.model)
    progress("gradients in float64 over the first steps")
    in_float64 = check_gradients(prepared, plan)
    progress("measuring one iteration under the plan")
    traced = traced_iteration(prepared, plan)
    progress("measuring one iteration of full BPTT")
    full_peak_bytes, expected = _full_iteration(full_model, prepared.window)
    check = compare_gradients(expected, traced.gradients, steps=prepared.job.sequence.length)
    prepared.model.zero_grad(set_to_none=True)
    full_model.zero_grad(set_to_none=True)
    planned, full = _train_both(prepared, plan, full_model, progress)
    outcome = Outcome(
        activation_bytes=full_activation_bytes(full_model, prepared.window),
        budget_bytes=prepared.budget_bytes,
        projected_peak_bytes=plan.projected_peak_bytes or 0,
        measured_peak_bytes=traced.peak_bytes,
        full_peak_bytes=full_peak_bytes,
        planned=planned,
        full=full,
        at_full_length=check,
        in_float64=in_float64,
        plan=describe_plan(plan),
    )
    return outcome, _chart(prepared, plan, traced, full_peak_bytes)


def traced_iteration(prepared: PreparedJob, plan: ExecutionPlan) -> Traced:
    """One forward and backward pass, with a mark before every action. Leaves the gradients in place."""
    actions: list[TieredAction] = []

    def observe(action: TieredAction | None) -> None:
        if action is not None:
            mark(str(len(actions)))
            actions.append(action)

    window = prepared.window
    prepared.loss.prepare(window)
    recording, _ = record(lambda: backward(prepared.loss.forward(window, plan, observe)))
    peak = max(sample.live_bytes for sample in recording.samples())
    gradients = gradients_of(prepared.model)
    return Traced(peak, actions, recording, gradients)


def _full_iteration(model: CharacterModel, window: Window) -> tuple[int, dict[str, Tensor | None]]:
    peak_bytes = measure(lambda: backward(model.full_loss(window)), device=_DEVICE).peak_bytes
    return peak_bytes, gradients_of(model)


def _train_both(
    prepared: PreparedJob, plan: ExecutionPlan, full_model: CharacterModel, progress: Progress
) -> tuple[Trained, Trained]:
    """The same batches for both, in turns, so that a busy machine slows both."""
    training, streams = prepared.job.training, prepared.streams
    evaluation = Window.of(streams.evaluation_window())
    models = (prepared.model, full_model)
    losses: tuple[Callable[[Window], Tensor], ...] = (
        partial(prepared.loss.forward, plan=plan),
        full_model.full_loss,
    )
    optimizers = [optimizer_for(model, training) for model in models]
    before = [model.evaluate(evaluation) for model in models]
    seconds: list[list[float]] = [[], []]
    for iteration in range(training.iterations):
        window = Window.of(streams.window(iteration))
        found = []
        for side in (0, 1):
            begin = time.perf_counter()
            found.append(iterate(partial(losses[side], window), optimizers[side]))
            seconds[side].append(time.perf_counter() - begin)
        count = f"iteration {iteration + 1}/{training.iterations}"
        progress(
            f"{count}: loss {found[0]:.4f} in {seconds[0][-1]:.2f} s, "
            f"full BPTT {found[1]:.4f} in {seconds[1][-1]:.2f} s"
        )
    after = [model.evaluate(evaluation) for model in models]
    planned, full = (Trained(statistics.median(seconds[side]), before[side], after[side]) for side in (0, 1))
    return planned, full


def _chart(prepared: PreparedJob, plan: ExecutionPlan, traced: Traced, full_peak_bytes: int) -> MemoryChart:
    projected = _projected(prepared, plan)
    model, sequence = prepared.job.model, prepared.job.sequence
    return MemoryChart(
        projected=projected,
        measured=_on_projected_clock(traced.recording, projected),
        budget_bytes=prepared.budget_bytes,
        full_bptt_peak_bytes=full_peak_bytes,
        subject=(
            f"{model.kind.upper()} of {model.hidden_size} units, {sequence.length:,} steps, batch "
            f"{sequence.batch_size}: one iteration"
        ),
    )


def _projected(prepared: PreparedJob, plan: ExecutionPlan) -> list[ProjectedAction]:
    chain = prepared.probe.chain(plan.length, plan.segment_steps)
    clock, is_forward = 0.0, True
    projected = []
    assert isinstance(plan.policy, Policy)  # noqa: S101 - the demonstration has no tiers
    for moment in moments(chain, expand(plan.policy)):
        is_forward = is_forward and not isinstance(moment.action, Backward)
        end = clock + moment.cost
        projected.append(ProjectedAction(clock, end, moment.peak_bytes, is_forward))
        clock = end
    return projected


def _on_projected_clock(recording: Recording, projected: Sequence[ProjectedAction]) -> list[MeasuredMoment]:
    """The recorded bytes, each action stretched to the seconds that the plan projected for it.

    The recording slows actions down unevenly; on the plan's own clock the two curves can be compared.
    """
    pieces: list[list[tuple[int, int]]] = []
    for sample in recording.samples():
        if sample.mark is not None:
            pieces.append([])
        if pieces:
            pieces[-1].append((sample.time_ns, sample.live_bytes))
    measured = []
    for piece, action in zip(pieces, projected, strict=True):
        begin, end = piece[0][0], piece[-1][0]
        scale = (action.end_seconds - action.begin_seconds) / max(1, end - begin)
        measured += [
            MeasuredMoment(action.begin_seconds + (time_ns - begin) * scale, live) for time_ns, live in piece
        ]
    return measured
