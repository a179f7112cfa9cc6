"""A plan that moves states to tiers gives the gradients of full BPTT, in the bytes that it promised."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, PlanMismatch, measure, predict, unroll
from executor.execute import execute
from executor.loop import Loop
from executor.plan import ExecutionPlan, tape_everything
from executor.probe import probe_loop
from executor.projection import projected_peak_bytes
from executor.stages.program import Program
from planner_service.chain import (
    Advance,
    Backward,
    Chain,
    Discard,
    Fetch,
    Free,
    Move,
    Store,
    Tape,
    Tier,
    TieredVerdict,
)
from planner_service.solvers.offload.solve import solve_offload
from tests.executor.loops import STEPS, LoopCase, cell_case, gradients, loss_of, plain, sequence, states

SECONDS = {"write_latency_seconds": 0.25, "read_latency_seconds": 0.25}
TIERS = {
    "blocking host": [Tier(name="host", budget_bytes=2**20, **SECONDS)],
    "overlapped host": [Tier(name="host", budget_bytes=2**20, **SECONDS, overlapped=True)],
    "disk": [Tier(name="disk", budget_bytes=2**20, **SECONDS)],
    "host and disk": [
        Tier(name="host", budget_bytes=800),
        Tier(name="disk", budget_bytes=2**20, **SECONDS),
    ],
}


def loop_of(case: LoopCase) -> Loop:
    return Loop.of(case.step, case.state, case.inputs, module=case.module, captured=case.captured)


def tiered_plan(loop: Loop, name: str) -> tuple[ExecutionPlan, Chain]:
    """A plan for the least device budget beside the tiers, so that much moves; and the loop's chain, with
    costs that are the same on every machine.
    """
    measured = probe_loop(loop, candidates=[1]).chain(loop.inputs.length, 1)
    costs = {"forward_cost": 1.0, "taped_forward_cost": 1.0, "backward_cost": 2.0}
    chain = replace(
        measured, runs=tuple(replace(run, stage=replace(run.stage, **costs)) for run in measured.runs)
    )
    tiers = TIERS[name]
    with pytest.raises(BudgetTooSmall) as refusal:
        solve_offload(chain, 0, tiers)
    solution = solve_offload(chain, refusal.value.minimum_budget_bytes, tiers)
    assert all(use.write_count for use in solution.verdict.tiers)
    return ExecutionPlan(loop.inputs.length, 1, solution.policy, tiers=tuple(tiers)), chain


@pytest.mark.usefixtures("either_stream")
@pytest.mark.parametrize("name", TIERS)
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_gradients_are_bitwise_those_of_full_bptt(kind: str, name: str) -> None:
    """A state that went to the host or to a file and came back is the state that left; of copies that happen
    only when they are waited for, a missing wait would give NaN.
    """
    case = cell_case(kind)
    plan, _ = tiered_plan(loop_of(case), name)
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: unroll(case.step, case.state, case.inputs, plan=plan, module=case.module))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


SCRIPT: list[Any] = []


class Scripted(ExecutionPlan):
    """A plan with a schedule of its own."""

    def schedule(self) -> Iterator[Any]:
        return iter(SCRIPT)


def scripted(actions: list[Any], monkeypatch: pytest.MonkeyPatch) -> ExecutionPlan:
    monkeypatch.setattr("tests.executor.offload.test_run.SCRIPT", actions)
    base = tape_everything(4, 1)
    host = Tier(name="host", budget_bytes=2**20, overlapped=True)
    return Scripted(4, 1, base.policy, tiers=(host,))


def short_case() -> LoopCase:
    case = cell_case("GRU")
    case.inputs = sequence()[:4].detach()
    return case


MOVES = [
    Advance(1, 1),
    Store(1, "host"),
    Move(2, 3),
    Tape(4, 4),
    Backward(4, 4),
    Free(3),
    Fetch(1, "host"),
    Advance(2, 2),
    Tape(3, 3),
    Backward(3, 3),
    Free(2),
    Tape(2, 2),
    Backward(2, 2),
    Free(1),
    Discard(1, "host"),
    Tape(1, 1),
    Backward(1, 1),
]


@pytest.mark.usefixtures("late_streams")
def test_a_move_lets_its_state_go_after_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's copy of x_1 is gone while stage 3 runs, and back, the same, for stage 2."""
    case = short_case()
    alive: dict[int, weakref.ref[Tensor]] = {}
    seen: list[int] = []

    def step(state: Tensor, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        number = int(given[1])
        if number == 2 and 2 not in alive:
            gc.collect()
            seen.append(alive[0]() is None)
        state, output = case.step(state, given[0])
        alive.setdefault(number, weakref.ref(state))
        return state, output

    plan = scripted(MOVES, monkeypatch)
    inputs = (case.inputs, torch.arange(4))
    unroll(step, case.state, inputs, plan=tape_everything(4, 1), module=case.module)  # known from here on
    alive.clear()
    outputs, state = unroll(step, case.state, inputs, plan=plan, module=case.module)
    assert seen[-1]
    found = torch.autograd.grad(loss_of(outputs, state), [case.state, case.modules()[0].weight_hh])
    expected = torch.autograd.grad(loss_of(*plain(case, 4)), [case.state, case.modules()[0].weight_hh])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


WRONG: dict[str, list[Any]] = {
    "store of what is not a checkpoint": [Store(2, "host")],
    "an unknown tier": [Advance(1, 1), Store(1, "tape")],
    "fetch of what was not stored": [Advance(1, 1), Free(1), Fetch(1, "host")],
    "fetch of what is there": [Advance(1, 1), Store(1, "host"), Fetch(1, "host")],
    "stored twice": [Advance(1, 1), Store(1, "host"), Store(1, "host")],
    "discard of what was not stored": [Advance(1, 1), Discard(1, "host")],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_schedule_that_breaks_a_rule_of_tiers_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = short_case()
    with pytest.raises(PlanMismatch):
        unroll(
            case.step, case.state, case.inputs, plan=scripted(WRONG[name], monkeypatch), module=case.module
        )


def test_a_plan_without_tiers_refuses_the_actions_of_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.executor.offload.test_run.SCRIPT", [Advance(1, 1), Store(1, "host")])
    case = short_case()
    plan = Scripted(4, 1, tape_everything(4, 1).policy)
    with pytest.raises(PlanMismatch, match="store 1 host"):
        unroll(case.step, case.state, case.inputs, plan=plan, module=case.module)


class Sampling(nn.Module):
    """Dropout and running statistics, whose copies travel with the states."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 6).double()
        self.dropout = nn.Dropout(0.4)
        self.norm = nn.BatchNorm1d(6).double()

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(self.dropout(x), self.norm(state))
        return state, state.sum()


@pytest.mark.usefixtures("late_streams")
@pytest.mark.parametrize("name", ["blocking host", "overlapped host"])
def test_random_streams_and_buffers_travel_with_the_state(name: str) -> None:
    """A step that samples and normalises draws the same numbers after its state was away."""
    results = []
    for planned in (False, True):
        torch.manual_seed(3)
        module = Sampling()
        case = LoopCase(module, states(), sequence(), module)
        if planned:
            plan, _ = tiered_plan(loop_of(case), name)
            run = lambda: unroll(module, case.state, case.inputs, plan=plan)  # noqa: E731, B023
        else:
            run = lambda: plain(case)  # noqa: E731, B023
        torch.manual_seed(4)
        results.append((gradients(case, run), [b.clone() for b in module.buffers()], torch.rand(2)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


def test_leaves_that_share_memory_share_it_again() -> None:
    """A state of one tensor seen twice, a counter and None: moved once, put together as it was."""
    linear = nn.Linear(6, 6).double()

    def step(state: dict[str, Any], x: Tensor) -> tuple[dict[str, Any], Tensor]:
        both = torch.tanh(linear(torch.cat([state["a"], state["b"]], 1)[:, :6] + state["b"].sum()) + x)
        after = {"a": both[:, :3], "b": both[:, 3:], "count": state["count"] + 1, "nothing": None}
        return after, both * state["count"]

    half = lambda: torch.randn(3, 3, dtype=torch.float64, requires_grad=True)  # noqa: E731
    state = {"a": half(), "b": half(), "count": 1, "nothing": None}
    case = LoopCase(step, state, sequence(), linear)
    plan, _ = tiered_plan(loop_of(case), "blocking host")
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: unroll(step, state, case.inputs, plan=plan, module=linear))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", TIERS)
def test_the_simulated_peaks_are_the_measured_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device, and of every tier; steps run as often as the plan says."""
    cell = nn.GRUCell(48, 24)
    runs: Counter[bool] = Counter()
    run_stage = Program.run

    def counted(*given: Any, is_taped: bool = True, **options: Any) -> Any:
        runs[is_taped] += 1
        return run_stage(*given, is_taped=is_taped, **options)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        return state, state.square().sum()

    x, state = torch.randn(60, 4, 48), torch.zeros(4, 24)
    loop = Loop.of(step, state, x, module=cell, reduce="sum", final_state="detached")
    needs = loop.needs()
    plan, chain = tiered_plan(loop, name)
    verdict = plan.replayed(chain)
    assert isinstance(verdict, TieredVerdict)
    projected_bytes = projected_peak_bytes(plan, probe_loop(loop, candidates=[1]))
    monkeypatch.setattr(Program, "run", counted)

    def iterate() -> Any:
        loss, final = execute(loop, plan, needs)
        loss.backward()
        return final  # held to the end, as the plan counts it

    measured = measure(iterate)
    assert measured.peak_bytes <= projected_bytes <= verdict.peak_bytes
    assert projected_bytes - measured.peak_bytes <= 0.001 * measured.peak_bytes
    assert runs == {False: verdict.advance_count, True: verdict.tape_count}
    for use, tier in zip(verdict.tiers, plan.tiers, strict=True):
        assert measured.tier_peak_bytes.get(use.name, 0) == use.peak_bytes <= tier.budget_bytes


@pytest.mark.parametrize("call", [3, STEPS + 2, STEPS + 7], ids=["forward", "recomputation", "later"])
def test_a_step_that_raises_gives_the_host_memory_back(call: int) -> None:
    """Nothing is held in any tier afterwards, and nothing on the device."""
    case = cell_case("GRU")
    calls = [-(10**6)]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        calls[0] += 1
        if calls[0] == call:
            raise ValueError("boom")
        return case.step(state, x)

    plan, _ = tiered_plan(loop_of(case), "overlapped host")
    from executor.offload import slots

    unroll(step, case.state, case.inputs, plan=tape_everything(STEPS, 1), module=case.module)
    calls[0] = 0
    with pytest.raises(ValueError, match="boom"):
        unroll(step, case.state, case.inputs, plan=plan, module=case.module)[0].sum().backward()
    assert not any(slots._held_bytes.values())


def test_an_unused_result_gives_the_host_memory_back() -> None:
    from executor.offload import slots

    case = cell_case("GRU")
    plan, _ = tiered_plan(loop_of(case), "overlapped host")
    result = unroll(case.step, case.state, case.inputs, plan=plan, module=case.module)
    assert slots._held_bytes["host"] > 0
    del result
    assert slots._held_bytes["host"] == 0


def small_loop() -> dict[str, Any]:
    cell = nn.GRUCell(32, 32)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        return state, state.square().sum()

    return {
        "step": step,
        "state": torch.zeros(4, 32),
        "inputs": torch.randn(120, 4, 32),
        "module": cell,
        "reduce": "sum",
        "final_state": "detached",
    }


def test_a_host_budget_is_used_where_it_pays_and_both_budgets_are_kept() -> None:
    """`unroll(..., host_budget=…)`: fewer seconds projected than without, measured within both budgets."""
    loop = small_loop()
    with pytest.raises(Exception, match="short") as refusal:
        predict(**loop, budget=1)
    budget = int(1.3 * refusal.value.minimum_budget_bytes)
    alone = predict(**loop, budget=budget)
    beside = predict(**loop, budget=budget, host_budget=3000)
    assert beside.projected_seconds < alone.projected_seconds
    (host,) = beside.tiers
    assert 0 < host.peak_bytes <= 3000

    def train(host_budget: int | None) -> None:
        unroll(**loop, budget=budget, host_budget=host_budget)[0].backward()

    found = []
    for host_budget in (None, 3000):
        train(host_budget)
        loop["module"].zero_grad(set_to_none=True)
        measured = measure(lambda host_budget=host_budget: train(host_budget))
        assert measured.peak_bytes <= budget
        found.append([parameter.grad.clone() for parameter in loop["module"].parameters()])
        loop["module"].zero_grad(set_to_none=True)
    assert measured.tier_peak_bytes["host"] == host.peak_bytes
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_a_host_budget_below_one_state_changes_nothing() -> None:
    loop = small_loop()
    assert predict(**loop, budget="1MiB", host_budget=10).tiers == ()
