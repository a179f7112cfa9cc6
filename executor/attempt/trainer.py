"""The trainer: plans one attempt at a job, trains under the plan, saves, measures.

Runs in the supervisor's child. It speaks through `emit` only: progress, and one result at the end.
"""

from __future__ import annotations

import json
import math
import statistics
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from executor.attempt.child import Emit
from executor.attempt.measuring import Measured, measurement_of, recording_bytes
from executor.attempt.memory_cap import (
    OutOfMemory,
    data_bytes,
    give_back_freed,
    memory_cap,
    missing_after,
    refused_bytes,
    used_bytes,
)
from executor.attempt.planning import StoredPlan, plan_attempt, share_profile
from executor.attempt.stopping import Stopping, StopRequested
from executor.attempt.task import Result, Task
from executor.attempt.weights_file import TrainingState, load_latest, save
from executor.errors import BudgetTooSmall
from executor.jobs.job import InvalidJob
from executor.jobs.models import Window
from executor.jobs.prepared import PreparedJob
from executor.jobs.training import held_bytes, iterate, optimizer_for
from executor.measure import default_device
from executor.memory.device import free_bytes
from executor.plan import ExecutionPlan
from executor.worker import check_gradients, describe_plan

PROGRESS_SECONDS = 0.2
"""Progress is sent this often at most: a slow reader must not slow training down."""
MOST_LOSSES = 10_000
"""In a measurement: a million would be more than the service takes."""
FREE_RATIO = 0.9
"""The share of free memory that the budget "free" takes: the rest is for what is no tensor."""


def run_task(task: Task, emit: Emit) -> None:
    """Do `task`; always emits one result."""
    stopping = Stopping()
    stopping.listen()
    training = Training(task, emit, stopping)
    before_bytes = data_bytes() or 0
    try:
        result = training.run()
    except StopRequested:
        result = training.result("preempted", "asked to stop")
    except OutOfMemory as error:
        result = replace(training.result("oom", str(error)), excess_bytes=error.excess_bytes)
    except BudgetTooSmall as error:
        result = replace(
            training.result("error", str(error)), minimum_budget_bytes=error.minimum_budget_bytes
        )
    except Exception as error:
        traceback.print_exc()
        result = training.failed(error, before_bytes)
    _say(f"{result.outcome}{f': {result.detail}' if result.detail else ''}")
    emit({"kind": "result", **result.record()})


class Training:
    """One attempt's training: what it has reached is read even after it failed."""

    def __init__(self, task: Task, emit: Emit, stopping: Stopping) -> None:
        self._task = task
        self._emit = emit
        self._stopping = stopping
        self._losses: list[float] = []
        self._seconds: list[float] = []
        self._measurement: dict[str, object] | None = None
        self._checked: dict[str, object] = {}
        self._budget_bytes: int | None = None
        self._progress_at = 0.0
        self._saved_at = time.monotonic()

    def result(self, outcome: str, detail: str | None = None) -> Result:
        """What has been reached, as the attempt's result."""
        last = self._losses[-1] if self._losses else None
        return Result(
            outcome=outcome,  # type: ignore[arg-type]
            detail=detail,
            iteration=len(self._losses),
            loss=last if last is not None and abs(last) < float("inf") else None,
            measurement=self._measurement,
            budget_bytes=self._budget_bytes,
        )

    def failed(self, error: Exception, before_bytes: int) -> Result:
        """The result of a fault outside the cap: out of memory while it was prepared, or something else."""
        asked_bytes = refused_bytes(error)
        if asked_bytes is None:
            result = self.result("error", f"{type(error).__name__}: {error}")
            return replace(result, is_permanent=isinstance(error, InvalidJob))
        promised_bytes = self._budget_bytes or self._task.job.budget.given_bytes or 0
        missing = missing_after(error, promised_bytes, before_bytes)
        excess_bytes = max(1, asked_bytes, missing)
        return replace(self.result("oom", str(error)), excess_bytes=excess_bytes)

    def run(self) -> Result:
        """Plan, check, measure, train. Raises StopRequested, OutOfMemory, InvalidJob, BudgetTooSmall, …"""
        prepared = self._prepared()
        self._stopping.check()
        saved = load_latest(self._task.work_dir, description=self._description())
        plan = self._plan(prepared, saved)
        self._stopping.check()
        self._check_gradients(prepared, plan.plan, is_new=saved is None)
        self._stopping.check()
        capped_bytes, device = _capped_bytes(prepared), prepared.loss.device
        with memory_cap(capped_bytes, device, recorded_bytes=recording_bytes(prepared, plan.plan)):
            broken = self._measure(prepared, plan)
        if broken is not None:
            return broken
        give_back_freed()
        with memory_cap(capped_bytes, device) as cap:
            _say(f"hard cap: {cap.allowed_bytes} bytes more than now ({cap.kind})")
            self._iterations(prepared, plan, saved)
        return self.result("succeeded")

    def _prepared(self) -> PreparedJob:
        prepared = PreparedJob.of(self._task.job, _say, device_bytes=self._device_bytes())
        self._budget_bytes = prepared.budget_bytes
        return prepared

    def _device_bytes(self) -> int:
        """What the budget "free" may take."""
        free = free_bytes(default_device())
        limit = self._task.memory_bytes
        return int(FREE_RATIO * (free if limit is None else min(free, limit)))

    def _plan(self, prepared: PreparedJob, saved: TrainingState | None) -> StoredPlan:
        earlier = None if saved is None or saved.plan is None else saved.plan
        plan = plan_attempt(prepared, self._task, earlier=earlier, wait=self._stopping.wait, say=_say)
        _say(describe_plan(plan.plan))
        share_profile(prepared, self._task, _say)
        return plan

    def _check_gradients(self, prepared: PreparedJob, plan: ExecutionPlan, *, is_new: bool) -> None:
        """Before anything is learned; a resumed job was checked by its first attempt."""
        check = check_gradients(prepared, plan) if is_new else None
        if check is not None:
            _say(str(check))
            if not check.passed:
                raise ArithmeticError(f"the gradients are not those of full BPTT: {check}")
            self._checked = {"gradient_check": check.record()}

    def _measure(self, prepared: PreparedJob, plan: StoredPlan) -> Result | None:
        """Measure one iteration that learns nothing; an oom result when the promise does not hold."""
        measured = Measured.of(prepared, plan.plan)
        self._measurement = measurement_of(self._task, prepared, plan, measured) | self._checked
        _say(f"measured peak: {measured.peak_bytes} of {prepared.budget_bytes} bytes")
        excess = measured.peak_bytes - prepared.budget_bytes
        if excess <= 0:
            return None
        detail = f"the measured peak of {measured.peak_bytes} bytes is {excess} over the budget"
        return replace(self.result("oom", detail), excess_bytes=excess)

    def _iterations(self, prepared: PreparedJob, plan: StoredPlan, saved: TrainingState | None) -> None:
        optimizer = optimizer_for(prepared.model, prepared.job.training)
        if saved is not None:
            _restore(prepared, optimizer, saved)
            self._losses = list(saved.losses)
            _say(f"resuming after iteration {saved.iteration}")
        if prepared.audit is not None:
            carried = None if saved is None else saved.carried
            prepared.audit.start(iteration=len(self._losses), carried=carried)
        with self._saving(prepared, plan, optimizer), self._booking(prepared):
            for iteration in range(len(self._losses), prepared.job.training.iterations):
                self._stopping.check()
                self._iterate(prepared, plan.plan, optimizer, iteration)
                if time.monotonic() - self._saved_at >= self._task.save_seconds:
                    self._save(prepared, plan, optimizer)

    def _iterate(
        self, prepared: PreparedJob, plan: ExecutionPlan, optimizer: torch.optim.Optimizer, iteration: int
    ) -> None:
        window = Window.of(prepared.streams.window(iteration))
        begin = time.perf_counter()
        self._losses.append(iterate(lambda: prepared.loss.forward(window, plan), optimizer, prepared.audit))
        self._seconds.append(time.perf_counter() - begin)
        self._tell_progress(prepared)

    def _tell_progress(self, prepared: PreparedJob) -> None:
        now = time.monotonic()
        count = prepared.job.training.iterations
        if now - self._progress_at < PROGRESS_SECONDS and len(self._losses) < count:
            return
        self._progress_at = now
        result = self.result("succeeded")
        device = prepared.loss.device
        self._emit(
            {
                "kind": "progress",
                "iteration": result.iteration,
                "loss": result.loss,
                "memory_free_bytes": free_bytes(device),
                "memory_used_bytes": used_bytes(device),
            }
        )
        _say(f"iteration {result.iteration}/{count}: loss {self._losses[-1]:.4f}, {self._seconds[-1]:.3f} s")

    @contextmanager
    def _booking(self, prepared: PreparedJob) -> Iterator[None]:
        """Losses, seconds, what was dropped of gradients: the measurement has it, however training ends."""
        try:
            yield
        finally:
            if self._measurement is not None and self._seconds:
                self._measurement.update(_timings(self._losses, self._seconds))
            if prepared.audit is not None and self._measurement is not None:
                self._measurement.update(gradient_sparsity=prepared.audit.measurement())

    @contextmanager
    def _saving(
        self, prepared: PreparedJob, plan: StoredPlan, optimizer: torch.optim.Optimizer
    ) -> Iterator[None]:
        """Save at the end, and when asked to stop: after a whole iteration, never in the middle of one."""
        try:
            yield
        except StopRequested:
            self._save(prepared, plan, optimizer)
            raise
        self._save(prepared, plan, optimizer)

    def _save(self, prepared: PreparedJob, plan: StoredPlan, optimizer: torch.optim.Optimizer) -> None:
        self._saved_at = time.monotonic()
        state = _state(prepared, plan, optimizer, description=self._description(), losses=self._losses)
        try:
            path = save(self._task.work_dir, state, attempt=self._task.number)
        except OSError as error:  # a full disk costs the resumption, not the training
            _say(f"weights NOT saved after iteration {state.iteration}: {error}")
        else:
            _say(f"weights after iteration {state.iteration}: {path.name}")

    def _description(self) -> str:
        record = self._task.job.record()
        return json.dumps({k: record[k] for k in ("model", "data", "sequence", "training")}, sort_keys=True)


def _capped_bytes(prepared: PreparedJob) -> int:
    """What training may add on the device; the CPU's cap watches all memory, that of moved states too."""
    held = held_bytes(prepared.model, prepared.window, prepared.job.training)
    host_bytes = prepared.job.host_budget_bytes or 0
    return prepared.budget_bytes + held + (host_bytes if prepared.loss.device.type == "cpu" else 0)


def _restore(prepared: PreparedJob, optimizer: torch.optim.Optimizer, saved: TrainingState) -> None:
    prepared.model.load_state_dict(saved.model)
    optimizer.load_state_dict(saved.optimizer)
    torch.set_rng_state(saved.random_state)
    if saved.device_random_state is not None and prepared.loss.device.type == "cuda":
        torch.cuda.set_rng_state(saved.device_random_state, prepared.loss.device)


def _state(
    prepared: PreparedJob,
    plan: StoredPlan,
    optimizer: torch.optim.Optimizer,
    *,
    description: str,
    losses: list[float],
) -> TrainingState:
    device = prepared.loss.device
    return TrainingState(
        iteration=len(losses),
        description=description,
        model=prepared.model.state_dict(),
        optimizer=optimizer.state_dict(),
        random_state=torch.get_rng_state(),
        device_random_state=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        losses=tuple(losses),
        plan=plan.text(),
        carried=None if prepared.audit is None else prepared.audit.carried,
    )


def _timings(losses: list[float], seconds: list[float]) -> dict[str, object]:
    """What a measurement says of the iterations; those of earlier attempts have losses, but no seconds.

    Of many losses every n-th is told, such that MOST_LOSSES are.
    """
    every = -(-len(losses) // MOST_LOSSES)
    return {
        "seconds_per_iteration": statistics.median(seconds),
        "iterations": len(seconds),
        "losses": [loss if math.isfinite(loss) else None for loss in losses[every - 1 :: every]],
        **({} if every == 1 else {"losses_every": every}),
    }


def _say(line: str) -> None:
    """To the attempt's log, which goes to the service."""
    print(line, flush=True)  # noqa: T201 - standard output is the log
