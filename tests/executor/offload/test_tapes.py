"""Tapes that go to host memory and come back: the gradients of full BPTT in the bytes of two tapes."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from executor import BudgetTooSmall, PlanMismatch, ReplayError, measure, predict, unroll
from executor.attempt.planning import StoredPlan
from executor.errors import CaptureError
from executor.execute import execute
from executor.jobs.job import job_from_record
from executor.jobs.prepared import PreparedJob
from executor.loop import Loop
from executor.offload import slots
from executor.offload.host_tapes import HostTapes
from executor.plan import ExecutionPlan, checkpoint_every, tape_everything, undo_every
from executor.planner import TAPES_ON_HOST
from executor.probe import probe_loop
from executor.probe_report import ProbeReport
from executor.probe_tapes import beside_host_memory
from executor.projection import projected_peak_bytes
from executor.reversible import RevGRU
from executor.worker import check_gradients, measured_iteration, planned_counts
from planner_service.chain import (
    EMPTY,
    Archive,
    ArchiveNode,
    Chain,
    CheckpointNode,
    Policy,
    TapeNode,
    Undo,
    without_reversals,
)
from planner_service.solvers import solve
from tests.executor.loops import (
    BATCH,
    SIZE,
    STEPS,
    LoopCase,
    cell_case,
    fused_case,
    gradients,
    loss_of,
    plain,
    sequence,
    states,
)

ROOM = HostTapes(slot_bytes=2**18, most=STEPS)


def on_host(plan: ExecutionPlan) -> ExecutionPlan:
    """The plan, whose archived stages are those whose tapes go to host memory."""
    return replace(plan, host_tapes=ROOM)


def all_but(taped: int, segment_steps: int = 1) -> ExecutionPlan:
    """Every tape goes but those of the last segments."""
    segments = -(-STEPS // segment_steps)
    nodes = (TapeNode(taped, EMPTY), ArchiveNode(segments - taped, 0))
    if not taped:
        nodes = (ArchiveNode(segments, EMPTY),)  # type: ignore[assignment]
    return on_host(ExecutionPlan(STEPS, segment_steps, Policy(nodes, len(nodes) - 1)))


PLANS: dict[str, Callable[[], ExecutionPlan]] = {
    "every tape": lambda: all_but(0),
    "all but the last three": lambda: all_but(3),
    "segments of five": lambda: all_but(0, 5),
    "stretches between checkpoints": lambda: on_host(undo_every(STEPS, 1, 5)),
    "two stretches, one inside the other": lambda: on_host(
        ExecutionPlan(STEPS, 1, Policy((ArchiveNode(8, EMPTY), ArchiveNode(STEPS - 8, 0)), 1))
    ),
    "one segment": lambda: all_but(0, STEPS),
}
ONE_BY_ONE = [name for name in PLANS if "segment" not in name]
"""Plans in segments of one step, whose sums are added up in the order of full BPTT."""


def planned(case: LoopCase, plan: ExecutionPlan) -> tuple[Any, Any]:
    return unroll(
        case.step,
        case.state,
        case.inputs,
        plan=plan,
        module=case.module,
        captured=case.captured,
        **case.options,
    )


@pytest.mark.usefixtures("late_streams")
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_gradients_are_those_of_full_bptt(kind: str, name: str) -> None:
    """Bitwise in segments of one step; copies that happen only when they are waited for"""
    case = cell_case(kind)
    tolerance = 0 if name in ONE_BY_ONE else 1e-12
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: planned(case, PLANS[name]()))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("late_streams")
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_segments_of_fused_kernels_too(kind: str, name: str) -> None:
    """What the kernels keep is what autograd is told; the state after a segment is a view of its outputs"""
    case = fused_case(kind)
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: planned(case, PLANS[name]()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Everything(nn.Module):
    """Dropout, running statistics, a frozen weight, a constant that every step saves, an integer state, and a
    state that passes through unchanged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE).double()
        self.dropout = nn.Dropout(0.4)
        self.norm = nn.BatchNorm1d(SIZE).double()
        self.frozen = nn.Linear(SIZE, SIZE).double().requires_grad_(False)

    def forward(self, state: Any, x: Tensor, scale: Tensor, mask: Tensor) -> Any:
        hidden, residual, count = state
        hidden = self.cell(self.dropout(x), self.norm(hidden)) * mask
        spectrum = torch.fft.fft(hidden).conj() * (1 + count)
        residual = residual + self.frozen(hidden) * scale
        return (hidden, residual, count + 1), (spectrum.real.tanh(), None)


@pytest.mark.usefixtures("late_streams")
@pytest.mark.parametrize("name", PLANS)
def test_what_a_step_saves_comes_back_whatever_it_is(name: str) -> None:
    """Random streams and buffers end where those of full BPTT end, and nothing that others hold is touched"""
    results = []
    for plan in (None, PLANS[name]()):
        torch.manual_seed(3)
        module, mask = Everything(), torch.randn(SIZE, dtype=torch.float64)
        log_scale = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
        scale, kept = log_scale.exp(), mask.clone()

        def step(state: Any, x: Tensor, module=module, scale=scale, mask=mask) -> Any:
            state, (y, _) = module(state, x, scale, mask)
            return state, y

        state = (*states(2), 0)
        case = LoopCase(step, state, sequence(), module, [scale])
        torch.manual_seed(4)
        outputs, final = plain(case) if plan is None else planned(case, plan)
        leaves = [*case.leaves()[:-1], log_scale]
        found = torch.autograd.grad(loss_of(outputs, final), leaves)
        assert final[2] == STEPS
        assert torch.equal(mask, kept)
        results.append((outputs, final, found, [b.clone() for b in module.buffers()], torch.rand(2)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduce", ["sum", "last"])
def test_other_reductions_of_the_outputs(reduce: Any) -> None:
    case = cell_case("LSTM")
    outputs, final = plain(case)
    outputs = outputs.sum(0) if reduce == "sum" else outputs[-1]
    expected = torch.autograd.grad(loss_of(outputs, final), case.leaves())
    plan = PLANS["every tape"]()
    outputs, final = unroll(case.step, case.state, case.inputs, plan=plan, module=case.module, reduce=reduce)
    found = torch.autograd.grad(loss_of(outputs, final), case.leaves())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_every_step_runs_once() -> None:
    """Nothing is computed again: that is what the copies are for"""
    case, runs = cell_case("GRU"), Counter[bool]()

    def step(state: Tensor, x: Tensor) -> Any:
        runs[torch.is_grad_enabled()] += 1
        return case.step(state, x)

    loop = Loop.of(step, case.state, case.inputs, module=case.module)
    needs = loop.needs()
    runs.clear()
    outputs, final = execute(loop, all_but(0), needs)
    loss_of(outputs, final).backward()
    assert runs == {True: STEPS}


# Bytes


def small_loop(length: int = 60) -> tuple[Loop, dict[str, Any]]:
    cell = nn.GRUCell(48, 24)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        return state, state.square().sum()

    options = {"module": cell, "reduce": "sum", "final_state": "detached"}
    x, state = torch.randn(length, 4, 48), torch.zeros(4, 24)
    return Loop.of(step, state, x, **options), {"step": step, "state": state, "inputs": x, **options}


def costed(chain: Chain) -> Chain:
    """The chain with costs that are the same on every machine: the copies of a tape take half a step."""

    def stage_of(stage: Any) -> Any:
        reversal = replace(stage.reversal, archive_cost=1.5, undo_cost=2.5)
        return replace(stage, forward_cost=1.0, taped_forward_cost=1.0, backward_cost=2.0, reversal=reversal)

    return replace(chain, runs=tuple(replace(run, stage=stage_of(run.stage)) for run in chain.runs))


@pytest.fixture(scope="module")
def probed() -> tuple[Loop, ProbeReport]:
    loop, _ = small_loop()
    report = probe_loop(loop, candidates=[1, 4, 7])
    return loop, beside_host_memory(loop, report, 2**30, 2**24)


@given(st.sampled_from([1, 4, 7]), st.floats(0, 1), st.integers(4, 60))
@settings(max_examples=25, deadline=None)
def test_the_simulated_peak_is_an_upper_bound_within_a_thousandth(
    probed: tuple[Loop, ProbeReport], segment_steps: int, share: float, most: int
) -> None:
    """Over budgets from the least one to that of full BPTT, and any room in host memory"""
    loop, report = probed
    chain = costed(report.chain(60, segment_steps))
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, 0, "reversible", most_archived=most)
    least = refusal.value.minimum_budget_bytes
    everything = projected_peak_bytes(tape_everything(60, segment_steps), report)
    budget_bytes = least + int(share * max(0, everything - least))
    solution = solve(chain, budget_bytes, "reversible", most_archived=most)
    tapes = report.host_tapes(segment_steps)
    plan = ExecutionPlan(60, segment_steps, solution.policy, host_tapes=tapes)
    assert plan.most_archived <= most
    projected_bytes = projected_peak_bytes(plan, report)
    measured = measured_run(loop, plan, report)
    assert measured.peak_bytes <= projected_bytes <= budget_bytes
    if plan.undoes:
        host_bytes = plan.most_archived * tapes.slot_bytes
        assert measured.tier_peak_bytes["host"] == host_bytes
        # A stretch that ends before the last segment is a little leaner than the largest of its stages.
        assert projected_bytes - measured.peak_bytes <= 0.001 * measured.peak_bytes + chain.state_bytes(1)


def measured_run(loop: Loop, plan: ExecutionPlan, report: ProbeReport) -> Any:
    def iterate() -> Any:
        loss, final = execute(loop, plan, report.needs)
        loss.backward()
        return final  # held to the end, as the plan counts it

    return measure(iterate)


def test_two_tapes_are_on_the_device_and_nothing_of_the_others(
    probed: tuple[Loop, ProbeReport],
) -> None:
    """Twice as many segments take not one byte more"""
    _, report = probed
    stages = [run.stage for run in report.chain(60, 4).runs]
    for stage in stages:
        assert stage.reversal.archive_bytes == 0
        assert stage.reversal.undo_workspace_bytes <= 2 * stages[1].tape_bytes + (
            stage.backward_workspace_bytes + stage.state_bytes
        )
    peaks = []
    for length in (60, 120):
        loop, _ = small_loop(length)
        plan = replace(
            ExecutionPlan(length, 4, Policy((ArchiveNode(length // 4, EMPTY),), 0)),
            host_tapes=HostTapes(2**18, length),
        )
        needs = loop.needs()
        execute(loop, plan, needs)[0].backward()
        peaks.append(measured_run(loop, plan, replace(report, needs=needs)).peak_bytes)
    assert peaks[0] == peaks[1]


def slow_loop() -> dict[str, Any]:
    """A step whose tape is small beside what it costs to run it again."""
    linear, slow = nn.Linear(32, 32), np.ones(60_000)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(2):
            np.sin(slow)  # in this thread, whose seconds the probe counts
        state = torch.tanh(linear(state) + x)
        return state, state.square().mean()

    x, state = torch.randn(40, 4, 32), torch.zeros(4, 32)
    return {"step": step, "state": state, "inputs": x, "module": linear, "reduce": "sum"}


def test_unroll_moves_tapes_where_that_is_faster_and_keeps_both_budgets() -> None:
    """By the probe's own clock; without host memory the same budget runs steps again"""
    loop = slow_loop()
    budget = 26_000
    alone = predict(**loop, budget=budget)
    for host_budget in ("1 MiB", "80 KiB"):
        predicted = predict(**loop, budget=budget, host_budget=host_budget)
        assert predicted.plan.strategy == TAPES_ON_HOST
        assert predicted.projected_seconds < alone.projected_seconds

        def iterate(host_budget: str = host_budget) -> Tensor:
            loss, _ = unroll(**loop, budget=budget, host_budget=host_budget)
            loss.backward()
            return loss

        measured = measure(iterate)
        assert measured.peak_bytes <= predicted.projected_peak_bytes <= budget
        assert 0 < measured.tier_peak_bytes["host"] <= {"1 MiB": 2**20, "80 KiB": 80 * 2**10}[host_budget]


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("segment_steps", [2, 5])
def test_the_bytes_of_fused_segments(kind: str, segment_steps: int) -> None:
    """The state after one is a view of its outputs: at the end of a stretch it is copied, and they go too"""
    module = getattr(nn, kind)(24, 24)
    count = 2 if kind == "LSTM" else 1
    state = tuple(torch.zeros(1, 4, 24) for _ in range(count))

    def segment(before: Any, x: Tensor) -> tuple[Any, Tensor]:
        y, after = module(x, before)
        return after, y.square().sum()

    given = state if count == 2 else state[0]
    options = {"module": module, "reduce": "sum", "final_state": "detached", "segment": segment}
    loop = Loop.of(None, given, torch.randn(40, 4, 24), **options)
    report = probe_loop(loop, candidates=[segment_steps])
    report = beside_host_memory(loop, report, 2**30, 2**24)
    tapes = report.host_tapes(segment_steps)
    segments = 40 // segment_steps
    for archived in (segments, segments - 2):
        nodes = (TapeNode(2, EMPTY), ArchiveNode(archived, 0 if archived < segments else EMPTY))
        plan = ExecutionPlan(40, segment_steps, Policy(nodes, 1), host_tapes=tapes)
        projected_bytes = projected_peak_bytes(plan, report)
        measured = measured_run(loop, plan, report)
        assert measured.peak_bytes <= projected_bytes <= measured.peak_bytes * 1.03
        assert measured.tier_peak_bytes["host"] == archived * tapes.slot_bytes


def test_without_room_for_a_few_tapes_states_move_or_nothing() -> None:
    """Four tapes are the least that is worth a rehearsal"""
    loop, _ = small_loop()
    report = probe_loop(loop, candidates=[4])
    assert beside_host_memory(loop, report, 2**30, 100).segments == report.segments


def test_the_probe_stays_within_the_budget() -> None:
    """Segments of which two tapes do not fit are not rehearsed"""
    loop, _ = small_loop()
    report = probe_loop(loop, candidates=[1, 20])
    room = report.segments[1].rehearsal_peak_bytes + 100
    beside = beside_host_memory(loop, report, room, 2**24)
    assert [segment.host_tapes is None for segment in beside.segments] == [False, True]
    measured = measure(lambda: beside_host_memory(loop, report, room, 2**24))
    assert measured.peak_bytes <= room


def test_a_job_may_move_tapes() -> None:
    """Segments run once, by count; gradients are compared in float64; its profile says nothing of the host"""
    job = job_from_record(
        {
            "model": {"kind": "gru", "hidden_size": 32, "embedding_size": 8},
            "data": {"text": "python", "characters": 10_000},
            "sequence": {"length": 60, "batch_size": 4},
            "training": {"iterations": 1},
            "budget": "512KiB",
            "host_budget": "4MiB",
        }
    )
    prepared = PreparedJob.of(job, lambda _message: None)
    tapes = prepared.probe.host_tapes(5)
    assert tapes is not None
    assert all("reversal" not in segment["inner"] for segment in prepared.profile()["segments"])
    plan = ExecutionPlan(60, 5, Policy((ArchiveNode(12, EMPTY),), 0), host_tapes=tapes)
    measured, executed = measured_iteration(prepared, plan)
    assert executed == planned_counts(plan) == (0, 12)
    assert measured.peak_bytes <= projected_peak_bytes(plan, prepared.probe)
    assert 0 < measured.tier_peak_bytes["host"] <= 4 * 2**20
    check = check_gradients(prepared, plan)
    assert check is not None
    assert check.largest_relative_difference <= 1e-12
    assert StoredPlan(plan, None).text() is None


def test_the_gradient_of_a_state_keeps_nothing_larger_alive() -> None:
    """That of a part of [state, input] is a view of the gradient of both; a leaf of its own would copy it"""
    hidden, wide = 4, 512
    linear = nn.Linear(hidden + wide, hidden)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(linear(torch.cat([state, x], 1)))
        return state, state.square().sum()

    options = {"module": linear, "reduce": "sum", "final_state": "detached"}
    for batch in (1, 4):  # of one row the view is contiguous, and a leaf keeps it as it comes
        loop = Loop.of(step, torch.zeros(batch, hidden), torch.randn(20, batch, wide), **options)
        report = beside_host_memory(loop, probe_loop(loop, candidates=[1]), 2**30, 2**28)
        nodes = (ArchiveNode(16, EMPTY), TapeNode(4, EMPTY), CheckpointNode(4, 0, 1))
        plan = ExecutionPlan(20, 1, Policy(nodes, 2), host_tapes=report.host_tapes(1))
        measured = measured_run(loop, plan, report)
        assert measured.peak_bytes <= projected_peak_bytes(plan, report)


def test_what_a_step_only_reads_does_not_travel() -> None:
    """A data set, of which it sees a part, and a frozen layer: neither goes to the host, nor comes twice"""
    data, cell = torch.randn(50_000, 4, 8), nn.Linear(8, 8)
    frozen = nn.Linear(1024, 1024).requires_grad_(False)
    into, out_of = nn.Linear(8, 1024), nn.Linear(1024, 8)

    def reading(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(cell(state) * x)
        return state, state.sum()

    def through(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(out_of(frozen(into(state))) + x)
        return state, state.sum()

    state, x = torch.zeros(4, 8), torch.randn(60, 4, 8)
    for loop in (
        Loop.of(reading, state, lambda t: data[t], length=60, module=cell, reduce="sum"),
        Loop.of(through, state, x, module=[into, out_of], reduce="sum"),
    ):
        report = probe_loop(loop, candidates=[1])
        measured = measure(lambda: beside_host_memory(loop, report, 2**30, 2**28))  # noqa: B023
        assert measured.result.host_tapes(1).slot_bytes <= 20_000
        assert measured.peak_bytes <= 2 * report.segments[0].rehearsal_peak_bytes


def test_a_tape_larger_than_all_that_were_rehearsed_gets_what_is_left_of_the_host() -> None:
    """Other data, of which steps keep more than those did; without room the plan says so"""
    wide, back = nn.Linear(8, 64), nn.Linear(64, 8)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(back(torch.relu(wide(x[x[:, 0] > 0]))).mean(0) + state)
        return state, state.square().sum()

    x = torch.randn(40, 16, 8)
    x[:, :8, 0], x[:, 8:, 0] = 1, -1
    loop = Loop.of(step, torch.zeros(16, 8), x, module=[wide, back], reduce="sum", final_state="detached")
    report = beside_host_memory(loop, probe_loop(loop, candidates=[1]), 2**30, 2**22)
    x[20:, 8:10, 0] = 1
    tapes = report.host_tapes(1)
    plan = ExecutionPlan(40, 1, Policy((ArchiveNode(40, EMPTY),), 0), host_tapes=tapes)
    measured = measured_run(loop, plan, report)
    assert 40 * tapes.slot_bytes < measured.tier_peak_bytes["host"] <= 2**22
    assert not slots._held_bytes["host"]
    with pytest.raises(PlanMismatch, match="host has no room"):
        execute(loop, replace(plan, host_tapes=replace(tapes, budget_bytes=0)), report.needs)


# What goes wrong


def test_a_parameter_that_a_step_writes_to_is_refused() -> None:
    """Its tape would have read the last version at every step"""
    linear = nn.Linear(SIZE, SIZE).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(linear(state) + x)
        with torch.no_grad():
            linear.weight.mul_(0.99)
        return state, state

    case = LoopCase(step, states(), sequence(), linear)
    with pytest.raises(ReplayError, match="it changes parameter 'weight' of captured 'linear'"):
        planned(case, all_but(0))


def test_changes_that_no_gradient_meets_are_no_fault() -> None:
    """Of a tensor that is only put out, and by an optimisation within the step"""
    linear = nn.Linear(SIZE, SIZE).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = state.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.tanh(linear(inner)).square().sum(), inner, retain_graph=True)
        with torch.no_grad():
            inner.sub_(0.1 * gradient)
        logits = linear(state) + x + inner.detach()
        chances = torch.softmax(logits.detach().requires_grad_(), -1)
        with torch.no_grad():
            chances[:, 0] = 0
        state = torch.tanh(logits)
        return state, state

    case = LoopCase(step, states(), sequence(), linear)
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: planned(case, all_but(0)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_steps_that_hooks_cannot_enter_keep_their_tapes() -> None:
    """torch.func inside a step, nested tensors: planned for the device alone, or untouched"""
    linear = nn.Linear(SIZE, SIZE).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.func.grad(lambda given: torch.tanh(linear(given)).square().sum())(state)
        state = torch.tanh(state - 0.1 * found + x)
        return state, state

    case = LoopCase(step, states(), sequence(), linear)
    expected = gradients(case, lambda: plain(case))
    found = gradients(
        case,
        lambda: unroll(step, case.state, case.inputs, module=linear, budget="50KiB", host_budget="64MiB"),
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_changes_after_it_was_saved_is_refused_as_by_autograd() -> None:
    """The copy would be of the changed tensor"""
    linear = nn.Linear(SIZE, SIZE).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        grown = torch.exp(linear(state) + x)
        after = torch.tanh(grown)
        grown.add_(1)
        return after, after.sum()

    case = LoopCase(step, states(), sequence(), linear)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss_of(*plain(case)).backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss_of(*planned(case, all_but(0))).backward()


def test_a_tensor_used_behind_our_back_is_found_in_the_first_tape() -> None:
    hidden = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
    case = LoopCase(lambda state, x: (torch.tanh(state * hidden + x), None), states(), sequence())
    loop = Loop.of(case.step, case.state, case.inputs)
    with pytest.raises(CaptureError, match="hidden"):
        execute(loop, all_but(0), replace_needs(loop))


def replace_needs(loop: Loop) -> Any:
    """What is needed of a loop, without the dry run that would find the tensor first."""
    from executor.rules.needs import Needs

    return Needs(draws_random_numbers=False, mutated_buffers=frozenset())


def test_slots_that_are_too_small_are_refused() -> None:
    case = cell_case("GRU")
    plan = replace(all_but(0), host_tapes=HostTapes(slot_bytes=64, most=STEPS))
    with pytest.raises(PlanMismatch, match="host has no room"):
        planned(case, plan)


@pytest.mark.parametrize(
    ("actions", "what"),
    [
        ([Archive(1, 4), Undo(4, 3)], "not those whose tapes went to host memory last"),
        ([Archive(1, 4), Undo(3, 1)], "gradient of x_3 is not live"),
    ],
)
def test_a_stretch_is_undone_whole(actions: list[Any], what: str) -> None:
    """A tape alone does not tell the state in the middle"""
    case = cell_case("GRU")
    case.inputs = sequence()[:4].detach()

    class Scripted(ExecutionPlan):
        def schedule(self) -> Any:
            return iter(actions)

    base = undo_every(4, 1, 4)
    plan = Scripted(4, 1, base.policy, host_tapes=ROOM)
    with pytest.raises(PlanMismatch, match=what):
        loss_of(*planned(case, plan)).backward()


@pytest.mark.parametrize("call", [3, STEPS + 2], ids=["forward", "recomputation"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_step_that_raises_gives_everything_back(call: int, error: type[BaseException]) -> None:
    """Host memory, parameters' gradients, and the next call works"""
    case = cell_case("GRU")
    calls = [-(10**6)]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        calls[0] += 1
        if calls[0] == call:
            raise error("boom")
        return case.step(state, x)

    module = case.modules()[0]
    plan = PLANS["stretches between checkpoints"]()
    unroll(step, case.state, case.inputs, plan=tape_everything(STEPS, 1), module=case.module)
    calls[0] = 0
    with pytest.raises(error, match="boom"):
        unroll(step, case.state, case.inputs, plan=plan, module=case.module)[0].sum().backward()
    assert not any(slots._held_bytes.values())
    assert all(parameter.grad is None for parameter in module.parameters())
    unroll(step, case.state, case.inputs, plan=plan, module=case.module)[0].sum().backward()
    assert not any(slots._held_bytes.values())


def test_an_unused_result_gives_the_host_memory_back() -> None:
    case = cell_case("GRU")
    result = planned(case, all_but(0))
    assert slots._held_bytes["host"] > 0
    del result
    assert slots._held_bytes["host"] == 0


def test_iteration_after_iteration_nothing_is_left() -> None:
    """Without the garbage collector's help: what a saved tensor refers to makes no cycle"""
    loop, _ = small_loop()
    needs = loop.needs()
    plan = ExecutionPlan(60, 4, Policy((ArchiveNode(15, EMPTY),), 0), host_tapes=HostTapes(2**18, 15))

    def iterate() -> None:
        execute(loop, plan, needs)[0].backward()

    iterate()
    gc.collect()
    gc.disable()
    try:
        counts = []
        for _ in range(5):
            iterate()
            counts.append(sum(issubclass(type(each), Tensor) for each in gc.get_objects()))
    finally:
        gc.enable()
    assert counts == counts[:1] * 5
    assert not any(slots._held_bytes.values())


def test_reversible_layers_go_on_archiving_what_they_lose() -> None:
    """Their way back needs no host memory: beside any the probe is the same"""
    module = RevGRU(SIZE, 2 * SIZE, forget_bits=3)
    state, x = module.initial_state(BATCH), sequence(dtype=torch.float32)
    loop = Loop.of(None, state, x, segment=module.segment, module=module)
    report = probe_loop(loop, candidates=[4])
    assert report.segments[0].inner.reversal is not None
    assert beside_host_memory(loop, report, 2**30, 2**30) is report


def test_a_chain_without_reversals_is_the_device_alone(probed: tuple[Loop, ProbeReport]) -> None:
    """What a planner is asked that cannot be told how many tapes there is room for"""
    _, report = probed
    chain = report.chain(60, 4)
    assert chain.is_reversible
    assert not without_reversals(chain).is_reversible
    assert without_reversals(chain).length == chain.length
    budget_bytes = projected_peak_bytes(checkpoint_every(60, 4, 1), report)
    assert solve(without_reversals(chain), budget_bytes).verdict.undo_count == 0
