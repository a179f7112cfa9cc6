"""Random numbers of Python and numpy are replayed as those of torch are."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from random import randint
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from executor import BudgetTooSmall, ReplayError, measure, unroll
from executor.loop import Loop
from executor.plan import checkpoint_every
from executor.surroundings.streams import NumpyStream, PythonStream
from tests.executor.loops import SIZE, STEPS, LoopCase, gradients, plain, sequence, states

PLAN = checkpoint_every(STEPS, 2, 2)
OWN, LEGACY, OWN_OF_PYTHON = np.random.default_rng(3), np.random.RandomState(3), random.Random(3)


def a_coin() -> bool:
    return random.random() < 0.9


def imported_in_the_step() -> float:
    import numpy as numbers

    return float(numbers.random.rand())


DRAWS: dict[str, Callable[[], float]] = {
    "random": lambda: float(a_coin()),
    "random, normal": lambda: random.gauss(0, 1),
    "a method of random's": lambda: randint(0, 9) / 9,
    "a Random": OWN_OF_PYTHON.random,
    "numpy": np.random.rand,
    "numpy, normal": lambda: np.random.normal(0, 1),
    "a RandomState": lambda: LEGACY.normal(0, 1),
    "a Generator": OWN.random,
    "numpy, imported in the step": imported_in_the_step,
}


def _seed() -> None:
    random.seed(5)
    np.random.seed(5)
    OWN_OF_PYTHON.seed(5)
    LEGACY.seed(5)
    OWN.bit_generator.state = np.random.default_rng(5).bit_generator.state


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_teacher_forcing_tosses_the_same_coins_again(draw: Callable[[], float]) -> None:
    """Two looks at two coins of 0.9 see the same two times in three, and then gradients were wrong"""
    torch.manual_seed(0)
    cell = nn.GRUCell(SIZE, SIZE).double()

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x * draw(), state)
        return state, state

    case = LoopCase(step, states(), sequence(), cell)
    _seed()
    expected = gradients(case, lambda: plain(case))
    after = draw()
    _seed()
    found = gradients(case, lambda: unroll(step, case.state, case.inputs, module=cell, plan=PLAN))
    assert draw() == after
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_generator_of_numpy_in_the_state_is_replayed() -> None:
    def step(state: Any, x: Tensor) -> tuple[Any, Tensor]:
        after = torch.tanh(state[0] * state[1].random() + x)
        return (after, state[1]), after

    case = LoopCase(step, (states(), OWN), sequence())
    _seed()
    expected = gradients(case, lambda: plain(case))[2]
    _seed()
    found = gradients(case, lambda: unroll(step, case.state, case.inputs, plan=PLAN))[2]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_coin_that_was_not_seen_to_be_tossed_is_refused() -> None:
    """Later steps draw: nobody kept where the stream was"""

    def step(state: Tensor, given: tuple[Tensor, int]) -> tuple[Tensor, Tensor]:
        x, t = given
        state = torch.tanh(state + x) * (random.random() if t > STEPS // 2 else 1)
        return state, state

    inputs = sequence()
    with pytest.raises(ReplayError, match="drew random numbers"):
        unroll(step, states(), lambda t: (inputs[t], t), length=STEPS, captured=inputs, plan=PLAN)


def test_only_streams_that_move_are_kept_and_their_states_have_one_size() -> None:
    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = state * random.random() if x.dim() else state * np.random.rand() * LEGACY.rand()
        return state, x

    loop = Loop.of(step, states(), sequence())
    needs = loop.needs()
    assert len(loop.seen.streams) == 3
    assert len(needs.moved_streams) == 1
    assert not needs.draws_random_numbers
    assert [each.numel() for each in loop.replay(needs).take().streams] == [2509]
    kinds: list[tuple[Any, Callable[[], float]]] = [
        (PythonStream(OWN_OF_PYTHON), OWN_OF_PYTHON.random),
        (NumpyStream(LEGACY), LEGACY.rand),
        (NumpyStream(OWN), OWN.random),
    ]
    for stream, draw in kinds:
        before, sizes = stream.get_state(), set()
        for _ in range(30):
            draw()
            sizes.add(stream.get_state().numel())
        stream.set_state(before)
        assert sizes == {before.numel()}
        assert torch.equal(stream.get_state(), before)


def test_states_of_streams_come_back_from_host_memory_within_the_budget() -> None:
    """They lay where nobody counts, and came back where it counts: a fifth over the least budget"""
    cell = nn.GRUCell(SIZE, SIZE)
    inputs, zeros = torch.randn(40, 3, SIZE), torch.zeros(3, SIZE)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(x * random.random(), state)
        return state, state.square().mean()

    def iteration(budget: int) -> None:
        cell.zero_grad()
        options: dict[str, Any] = {"module": cell, "reduce": "sum", "host_budget": 10**6}
        loss, _ = unroll(step, zeros, inputs, budget=budget, **options)
        loss.backward()

    with pytest.raises(BudgetTooSmall) as refusal:
        iteration(1)
    budget = refusal.value.minimum_budget_bytes
    iteration(budget)
    cell.zero_grad()
    measured = measure(partial(iteration, budget))
    assert measured.tier_peak_bytes
    assert measured.peak_bytes <= budget
