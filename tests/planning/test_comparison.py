"""Strategies side by side: each row is that strategy's own plan."""

import json
import re
from pathlib import Path

import pytest

from planner_service.contract import ComparisonRequest, PlanRequest
from planner_service.planning import Planner, comparison
from planner_service.planning.choice import choose
from planner_service.solvers import STRATEGIES, ScheduleTooLong
from tests.contract.requests import CHAIN, changed, stage_of
from tests.planning.test_plan import SMALL

ROOT = Path(__file__).parents[2]
PLANNER = Planner(())
MODEL = changed(CHAIN, "model", "stages", 0, "count", to=30)["model"]
UNLIKE = [stage_of(0, 2, 0.7, 1, 21, count=2), stage_of(1, 0.3, 0.7, 5, 15, count=20)]
FEW = {
    "kind": "chain",
    "input_bytes": 1,
    "static_bytes": 3,
    "stages": [
        stage_of(
            0.1, 1, 2, 1, 1, count=1, forward_workspace_bytes=4, backward_workspace_bytes=3, gradient_bytes=0
        ),
        stage_of(1, 0.3, 0, 10, 5010, count=2, backward_workspace_bytes=3),
    ],
}


def compared(budget_bytes, question=None):
    question = question or {"model": MODEL}
    request = {**question, "memory": {"device_budget_bytes": budget_bytes}}
    return request, PLANNER.compare(ComparisonRequest.model_validate(request))


def row_of(rows, strategy):
    return next(row for row in rows if row.strategy == strategy)


@pytest.mark.parametrize("budget_bytes", [20, 40, 200])
def test_every_strategy_is_a_row_with_its_own_plan(budget_bytes):
    request, reply = compared(budget_bytes)
    assert {row.strategy for row in reply.at_equal_bytes} == set(STRATEGIES) - {"auto"}
    for row in reply.at_equal_bytes:
        if row.fits:
            plan = PLANNER.plan(PlanRequest.model_validate({**request, "strategy": row.strategy}))
            assert (row.makespan, row.peak_bytes) == (plan.cost.makespan, plan.memory.projected_peak_bytes)
            assert row.exact_gradient == plan.exact_gradient
            assert row.peak_bytes <= budget_bytes
        else:
            assert row.reason


def test_rows_without_a_plan_come_last_and_say_what_they_would_need():
    _, reply = compared(20)
    fits = [row.fits for row in reply.at_equal_bytes]
    assert fits == sorted(fits, reverse=True)
    assert row_of(reply.at_equal_bytes, "store_all").minimum_budget_bytes == 121


def test_auto_is_no_slower_than_any_exact_strategy_in_the_same_bytes():
    for budget_bytes in (15, 20, 40, 70):
        _, reply = compared(budget_bytes)
        exact = [row.makespan for row in reply.at_equal_bytes if row.fits and row.exact_gradient]
        assert reply.reference_makespan == min(exact)


def test_at_equal_time_nobody_is_slower_and_the_optimum_needs_no_more_than_the_budget():
    _, reply = compared(40)
    for row in reply.at_equal_time:
        if row.fits:
            assert row.makespan <= reply.reference_makespan
    assert row_of(reply.at_equal_time, "optimal").peak_bytes <= 40
    assert row_of(reply.at_equal_time, "store_all").peak_bytes == 121


def test_at_equal_time_a_sum_in_another_order_is_no_slower():
    stages = [stage_of(0.3, 2, 0.1, 2, 2, count=4)]  # 9 or 8.999999999999998
    chain = {"kind": "chain", "input_bytes": 5, "loss_gradient_bytes": 7, "stages": stages}
    _, reply = compared(20, {"model": chain})
    for row in reply.at_equal_bytes:
        if row.fits and row.makespan == pytest.approx(reply.reference_makespan):
            assert row_of(reply.at_equal_time, row.strategy).peak_bytes <= 20


@pytest.mark.parametrize("stages", [MODEL["stages"], UNLIKE])
def test_at_equal_time_a_row_is_what_the_strategy_has_in_the_budget_that_it_names(stages):
    """`mixed` is refused in its own plan's peak: it charges states twice"""
    question = {"model": {**MODEL, "stages": stages}}
    _, reply = compared(40, question)
    for row in reply.at_equal_time:
        if row.fits:
            asked = {
                **question,
                "memory": {"device_budget_bytes": row.budget_bytes},
                "strategy": row.strategy,
            }
            plan = PLANNER.plan(PlanRequest.model_validate(asked))
            assert plan.cost.makespan <= row.makespan
            assert row.peak_bytes <= row.budget_bytes


def test_at_equal_time_no_row_takes_more_than_at_equal_bytes_where_that_is_quick_enough():
    """The search stopped a hundredth of full BPTT's bytes away, above the budget of the request"""
    _, reply = compared(5037, {"model": FEW})
    within = row_of(reply.at_equal_bytes, "every_k")
    assert within.makespan == reply.reference_makespan
    assert row_of(reply.at_equal_time, "every_k").peak_bytes <= within.peak_bytes


def test_what_auto_cannot_plan_other_strategies_are_still_asked_for(monkeypatch):
    """A refusal of `auto` for other reasons than bytes refused the whole comparison"""

    def only_others(candidates, budget_bytes, strategy, *arguments, **tiers):
        if strategy == "auto":
            raise ScheduleTooLong(length=30, most_decisions=1)
        return choose(candidates, budget_bytes, strategy, *arguments, **tiers)

    monkeypatch.setattr(comparison, "choose", only_others)
    _, reply = compared(40)
    assert row_of(reply.at_equal_bytes, "hidden").fits
    assert reply.reference_makespan is None
    assert reply.at_equal_time == []


def test_without_any_plan_there_is_no_time_to_compare_at():
    _, reply = compared(1)
    assert reply.reference_makespan is None
    assert reply.at_equal_time == []
    assert not any(row.fits for row in reply.at_equal_bytes)


def test_recurrent_models_are_compared_too():
    question = {name: SMALL[name] for name in ("model", "sequence", "training")}
    _, reply = compared(10**6, question)
    assert row_of(reply.at_equal_bytes, "store_all").overhead_ratio == 0


def test_the_page_on_undoing_steps_shows_what_its_command_says():
    """Every row of the table of docs/strategies/reversible.md, by a plan with that strategy."""
    page = (ROOT / "docs" / "strategies" / "reversible.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d.]+) % \|$", page, flags=re.MULTILINE)
    request = json.loads((ROOT / "openapi/examples/comparisons/rev-gru.json").read_text(encoding="utf-8"))
    assert len(rows) == 6
    for strategy, makespan, percent in rows:
        cost = PLANNER.plan(PlanRequest.model_validate({**request, "strategy": strategy})).cost
        told = f"{round(cost.makespan):,}", f"{100 * cost.overhead_ratio:.1f}"
        assert (strategy, *told) == (strategy, makespan, percent)
