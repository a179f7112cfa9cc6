"""The planner is asked about every segment length; whoever answers, the plan is replayed before it runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, PlanMismatch, unroll
from executor.loop import Loop
from executor.planner import best_plan, in_process, over_http
from executor.probe import probe_loop
from executor.probe_report import ProbeReport
from planner_service.chain import EMPTY, Chain, Policy, TapeNode, Tier, simulate
from tests.serving import Serving

STEPS = 40


@pytest.fixture(scope="module")
def report() -> ProbeReport:
    cell = nn.GRUCell(8, 8)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x, state)
        return state, state

    return probe_loop(Loop.of(step, torch.zeros(2, 8), torch.randn(STEPS, 2, 8), module=cell))


def store_all(
    chain: Chain, budget_bytes: int, tiers: tuple[Tier, ...] = (), most_archived: int | None = None
) -> tuple[str, Policy]:
    return "store_all", Policy((TapeNode(chain.length, EMPTY),), 0)


def test_the_quickest_segment_length_wins(report: ProbeReport) -> None:
    """With an ample budget that is the least time of taping everything."""
    plan = best_plan(report, 2**40, in_process)
    times = [report.chain(STEPS, s.segment_steps).store_all_makespan for s in report.segments]
    assert plan.makespan_seconds == min(times)


def test_the_least_minimum_of_all_lengths_is_named(report: ProbeReport) -> None:
    with pytest.raises(BudgetTooSmall) as refusal:
        best_plan(report, 1, in_process)
    least = refusal.value.minimum_budget_bytes
    assert best_plan(report, least, in_process).projected_peak_bytes == least


def test_a_plan_that_does_not_fit_is_not_run(report: ProbeReport) -> None:
    """A planner that answers with too much is not believed: the simulator is the judge."""
    chain = report.chain(STEPS, 1)
    needed = simulate(chain, [], None).peak_bytes + 1
    with pytest.raises(PlanMismatch, match="over the budget"):
        best_plan(report, needed, store_all)


def test_the_service_answers_as_the_solvers_in_this_process_do(report: ProbeReport, service: Serving) -> None:
    """Over HTTP the chains of the probe go as they are; the plan and the refusal's minimum are equal."""
    ask = over_http(service.url)
    with pytest.raises(BudgetTooSmall) as refusal:
        best_plan(report, 1, in_process)
    least = refusal.value.minimum_budget_bytes
    with pytest.raises(BudgetTooSmall) as remote:
        best_plan(report, 1, ask)
    assert remote.value.minimum_budget_bytes == least
    assert best_plan(report, 2 * least, ask) == best_plan(report, 2 * least, in_process)


def test_a_planner_that_does_not_answer_is_named() -> None:
    """Nothing is lost: the call may be repeated without the service."""
    from planner_service.client import PlannerUnreachable

    cell = nn.GRUCell(4, 4)
    arguments = (lambda s, x: (cell(x, s), None), torch.zeros(1, 4), torch.randn(6, 1, 4))
    with pytest.raises(PlannerUnreachable, match=r"127\.0\.0\.1:9"):
        unroll(*arguments, budget="1MiB", module=cell, planner="http://127.0.0.1:9")
    _, state = unroll(*arguments, budget="1MiB", module=cell)
    state.sum().backward()
    assert cell.weight_hh.grad is not None
