"""Loops whose steps differ in what they use keep to their projection, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from executor import BudgetTooSmall, UnsupportedOutput, measure, predict, unroll
from executor.loop import Loop
from executor.probe import probe_loop
from executor.probing.stage_costs import EMPTY_STAGE
from executor.probing.survey import exceeds

torch.set_num_threads(1)
BATCH, SIZE = 3, 16
Loops = dict[str, Any]


def assert_bounded(loop: Loops) -> None:
    """From the least budget to an ample one: the peak is within the projection, that within the budget."""
    with pytest.raises(BudgetTooSmall) as refusal:
        predict(**loop, budget=1)
    least = refusal.value.minimum_budget_bytes
    full = predict(**loop, budget="1GiB").full_bptt_peak_bytes
    for budget in (least, least + max(0, full - least) // 5, "1GiB"):

        def train(budget: int | str = budget) -> Any:
            outputs, state = unroll(**loop, budget=budget)
            outputs.sum().backward()
            return outputs, state

        prediction = predict(**loop, budget=budget)
        nn.ModuleList(loop["module"]).zero_grad(set_to_none=True)
        for tensor in loop["captured"]:
            tensor.grad = None
        peak = measure(train).peak_bytes
        assert peak <= prediction.projected_peak_bytes <= prediction.budget_bytes


def clockwork(
    uses: Callable[[int], bool], *, captures: bool = False, steps: int = 23, **options: Any
) -> Loops:
    """A cell at every step; at some of them a second module, or a captured tensor."""
    cell, slow = nn.GRUCell(SIZE, SIZE), nn.Linear(SIZE, SIZE)
    weight = torch.randn(SIZE, SIZE, requires_grad=True)

    def step(state: tuple[Tensor, int], x: Tensor) -> tuple[Any, Tensor]:
        h, t = cell(x, state[0]), state[1]
        if uses(t):
            h = torch.tanh(h @ weight if captures else slow(h))
        return (h, t + 1), h.square().sum()

    return {
        "step": step,
        "state": (torch.zeros(BATCH, SIZE), 0),
        "inputs": torch.randn(steps, BATCH, SIZE),
        "module": [cell] if captures else [cell, slow],
        "captured": [weight] if captures else [],
        **options,
    }


@settings(max_examples=12, deadline=None)
@given(
    period=st.integers(1, 9),
    offset=st.integers(0, 8),
    captures=st.booleans(),
    reduce=st.sampled_from(["sum", "last", "stack"]),
    final_state=st.sampled_from(["differentiable", "detached"]),
)
def test_modules_used_at_some_steps_only_are_within_the_projection(
    period: int, offset: int, captures: bool, reduce: str, final_state: str
) -> None:
    """At every second step, every ninth, or never; at none of those that a rehearsal sees, at all of them."""
    assert_bounded(
        clockwork(
            lambda t: t % period == offset,
            captures=captures,
            reduce=reduce,
            final_state=final_state,
            steps=13,
        )
    )


@pytest.mark.parametrize("when", [range(1), range(3), range(11, 12), range(7, 9), range(22, 23)])
def test_modules_used_once_or_at_the_beginning_are_within_the_projection(when: range) -> None:
    """No three neighbouring stages show what these loops take."""
    assert_bounded(clockwork(lambda t: t in when, reduce="sum"))


@pytest.mark.parametrize("puts_out_new", [True, False])
@pytest.mark.parametrize("reduce", ["last", "sum", "stack"])
def test_states_whose_gradients_come_and_go_are_within_the_projection(
    puts_out_new: bool, reduce: str
) -> None:
    """A delay line with a detached final state: from the end backwards one part of the state has a gradient,
    then the other.
    """
    linear = nn.Linear(SIZE, SIZE)

    def step(state: tuple[Tensor, Tensor], x: Tensor) -> tuple[Any, Tensor]:
        new = torch.sigmoid(linear(state[1]) + x)
        return (new, state[0]), new if puts_out_new else state[0]

    assert_bounded(
        {
            "step": step,
            "state": (torch.zeros(BATCH, SIZE), torch.zeros(BATCH, SIZE)),
            "inputs": torch.randn(13, BATCH, SIZE),
            "module": [linear],
            "captured": [],
            "reduce": reduce,
            "final_state": "detached",
        }
    )


def probed(loop: Loops, candidates: list[int]) -> Any:
    loop = dict(loop)
    return probe_loop(
        Loop.of(loop.pop("step"), loop.pop("state"), loop.pop("inputs"), **loop), candidates=candidates
    )


def test_modules_never_used_do_not_make_the_projection_loose() -> None:
    """A head for after the loop, a counter in the state: all steps are looked at, and found to be alike."""
    alike = probed(clockwork(lambda _t: False, reduce="sum"), [1])
    differing = probed(clockwork(lambda t: t == 20, reduce="sum"), [1])
    assert alike.steps_differ is False
    assert differing.steps_differ is True
    assert alike.segments[0].last.taped_forward_workspace_bytes > 0  # spared by the first backward
    assert differing.segments[0].inner.tape_bytes > alike.segments[0].inner.tape_bytes


def test_a_first_stage_that_keeps_less_of_what_it_takes_is_not_larger() -> None:
    """Without a gradient of its state more of what taping takes is let go at the end. Steps passed for
    different ones when longer segments were tried, and the budget that a refusal had named was refused.
    """
    inner = replace(EMPTY_STAGE, tape_bytes=3104, taped_forward_workspace_bytes=584)
    assert not exceeds(replace(inner, tape_bytes=1360, taped_forward_workspace_bytes=776), inner)
    assert exceeds(replace(inner, tape_bytes=3100, taped_forward_workspace_bytes=589), inner)
    assert exceeds(replace(inner, tape_bytes=3105, taped_forward_workspace_bytes=0), inner)


def test_what_only_longer_segments_show_counts_for_shorter_ones() -> None:
    """Steps of one tell nothing of the fourth where the state does not count and all else is used."""
    cell = nn.GRUCell(SIZE, SIZE)

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = cell(x, h)
        for _ in range(3 if x.numpy()[0, 0] > 0 else 0):  # what no operation of torch's tells
            h = torch.tanh(h)
        return h, h.sum()

    inputs = torch.zeros(20, BATCH, SIZE)
    inputs[3] = 1.0
    state = torch.zeros(BATCH, SIZE)
    loop = {"step": step, "state": state, "inputs": inputs, "module": [cell], "reduce": "sum"}
    alone, both = probed(loop, [1]), probed(loop, [1, 5])
    assert alone.steps_differ is None
    assert both.steps_differ is True
    assert both.segments[0].inner.tape_bytes > alone.segments[0].inner.tape_bytes


def by_branch(h: Tensor, x: Tensor) -> Tensor:
    return deepened(h, 30 if x.mean() > 0 else 0)


def by_convergence(h: Tensor, x: Tensor) -> Tensor:
    while x.mean() > 0:
        h, x = torch.tanh(h), x - 0.03
    return h


def by_mask(h: Tensor, x: Tensor) -> Tensor:
    return h + deepened(h[x[:, 0] > 0], 30).sum()


def deepened(h: Tensor, times: int) -> Tensor:
    for _ in range(times):
        h = torch.tanh(h)
    return h


def assert_peak_within(budget: int, deepen: Callable[[Tensor, Any], Tensor], inputs: Any) -> None:
    """That of a loop which has no room for a rehearsal of segments that come to the steps in the middle."""
    cell = nn.GRUCell(SIZE, SIZE)

    def step(h: Tensor, given: Any) -> tuple[Tensor, Tensor]:
        h = deepen(cell(h, h), given)
        return h, h.sum()

    loop = {"step": step, "state": torch.zeros(BATCH, SIZE), "inputs": inputs, "module": cell, "length": 60}

    def train() -> None:
        unroll(**loop, reduce="sum", budget=budget)[0].backward()

    train()
    cell.zero_grad(set_to_none=True)
    assert measure(train).peak_bytes <= budget


@pytest.mark.parametrize("deepen", [by_branch, by_convergence, by_mask])
def test_steps_that_do_more_by_what_is_in_tensors_are_within_the_budget(
    deepen: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Neither the first ones do nor the last: peaks were over twice the budget."""
    inputs = torch.zeros(60, BATCH, SIZE)
    inputs[35:40] = 1.0
    assert_peak_within(20_000, deepen, inputs)


def test_steps_that_do_more_by_their_number_are_within_the_budget() -> None:
    """A callable of t tells it to them, or hands them more."""
    assert_peak_within(20_000, lambda h, t: deepened(h, 30 if 35 <= t < 40 else 0), lambda t: t)


def test_what_data_decide_may_come_in_every_step_of_a_segment() -> None:
    """With other data another time, where no number in the state tells one step from another."""
    cell = nn.GRUCell(SIZE, SIZE)

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h = by_branch(cell(x, h), x)
        return h, h.sum()

    def tapes(where: slice) -> int:
        inputs = torch.zeros(20, BATCH, SIZE)
        inputs[where] = 1.0
        loop = {"step": step, "state": torch.zeros(BATCH, SIZE), "inputs": inputs, "module": [cell]}
        return probed({**loop, "reduce": "sum"}, [1, 5]).segments[1].inner.tape_bytes

    assert tapes(slice(7, 8)) >= tapes(slice(None))


def test_segments_that_forget_to_sum_are_told() -> None:
    """Their outputs grow with the segment: not a profile below zero, but the mistake by name."""
    module = nn.GRU(SIZE, SIZE)

    def segment(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        y, h = module(x, h)
        return h, y

    with pytest.raises(UnsupportedOutput, match="sum over its steps"):
        unroll(
            None,
            torch.zeros(1, BATCH, SIZE),
            torch.randn(40, BATCH, SIZE),
            segment=segment,
            module=module,
            reduce="sum",
            budget="1GiB",
        )


def test_what_a_step_takes_may_be_a_matter_of_chance() -> None:
    """Depth that is drawn: next time a segment may meet more of the large steps than any did that was seen"""
    cell, deep = nn.GRUCell(3, 5), nn.Sequential(nn.Linear(5, 200), nn.ReLU(), nn.Linear(200, 5))

    def tapes(depth: float) -> list[int]:
        def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            h = cell(x, h)
            if torch.rand(()) < depth:
                h = torch.tanh(deep(h))
            return h, h.square().mean()

        torch.manual_seed(1)
        loop = Loop.of(step, torch.zeros(4, 5), torch.randn(20, 4, 3), module=[cell, deep], reduce="sum")
        return [segment.inner.tape_bytes for segment in probe_loop(loop, candidates=(1, 5)).segments]

    at_most, often = tapes(1.0), tapes(0.2)
    assert all(found >= most for found, most in zip(often, at_most, strict=True))
