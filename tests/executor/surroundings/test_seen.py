"""What a step sees beside its arguments and the modules that it was declared with is replayed too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from executor import unroll
from executor.errors import CaptureError, ReplayError
from executor.loop import Loop
from executor.plan import checkpoint_every
from executor.surroundings.look import MOST_BESIDE
from executor.surroundings.reads import names_read
from executor.surroundings.seen import Seen
from tests.executor.loops import SIZE, STEPS, LoopCase, gradients, plain, sequence, states

PLAN = checkpoint_every(STEPS, 1, 3)


def both(make: Any) -> list[Any]:
    """Outputs, state and gradients of `make()`, a LoopCase, by plain autograd and under a plan."""
    found = []
    for is_planned in (False, True):
        torch.manual_seed(5)
        case: LoopCase = make()
        if is_planned:
            run = lambda: unroll(case.step, case.state, case.inputs, module=case.module, plan=PLAN)  # noqa: E731, B023
        else:
            run = lambda: plain(case)  # noqa: E731, B023
        found.append(gradients(case, run))
    return found


def test_a_generator_of_the_callers_is_replayed_and_no_probe_draws_from_it() -> None:
    def make() -> LoopCase:
        generator, cell = torch.Generator().manual_seed(3), nn.GRUCell(SIZE, SIZE).double()

        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            noise = torch.rand(state.shape, generator=generator, dtype=torch.float64)
            state = cell(x, state * noise)
            return state, state

        return LoopCase(step, states(), sequence(), cell)

    expected, found = both(make)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_numbers_drawn_in_a_fork_of_the_stream_are_replayed() -> None:
    """The stream is where it was after each step, so that only another seed shows the draw"""

    def make() -> LoopCase:
        cell = nn.GRUCell(SIZE, SIZE).double()

        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.random.fork_rng():
                noise = torch.randn_like(state)
            state = cell(x, state * noise)
            return state, state

        return LoopCase(step, states(), sequence(), cell)

    found = []
    for is_planned in (False, True):
        torch.manual_seed(5)
        case = make()
        outputs, _ = (
            unroll(case.step, case.state, case.inputs, module=case.module, plan=PLAN)
            if is_planned
            else plain(case)
        )
        torch.randn(3)  # what comes after the loop moves the stream on
        found.append(torch.autograd.grad(outputs.square().sum(), case.leaves()))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_a_module_that_trains_nothing_need_not_be_declared() -> None:
    """Its statistics are updated once per step, and its steps see those of their time"""
    norms = []

    def make() -> LoopCase:
        cell, norm = nn.GRUCell(SIZE, SIZE).double(), nn.BatchNorm1d(SIZE, affine=False).double()
        norms.append(norm)

        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            state = cell(norm(x), state) + norm.running_mean
            return state, state

        return LoopCase(step, states(), sequence(), cell)

    expected, found = both(make)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert norms[1].num_batches_tracked == STEPS
    torch.testing.assert_close(norms[1].running_mean, norms[0].running_mean, rtol=0, atol=0)


def test_a_dropout_that_was_probed_in_eval_mode_is_looked_at_anew() -> None:
    """Where the step sees it only by its closure"""
    cell, dropout = nn.GRUCell(SIZE, SIZE).double(), nn.Dropout(0.5)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = dropout(cell(x, state))
        return state, state

    case = LoopCase(step, states(), sequence(), cell)
    dropout.eval()
    unroll(step, case.state, case.inputs, module=cell, budget="1MiB")
    dropout.train()
    torch.manual_seed(4)
    expected = gradients(case, lambda: plain(case))
    torch.manual_seed(4)
    found = gradients(case, lambda: unroll(step, case.state, case.inputs, module=cell, budget="1MiB"))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Bag:
    """An object that a step reads one attribute of."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing


class Hidden(nn.Module):
    """A module with something in a private list, where it is no part of the module."""

    def __init__(self, thing: Any) -> None:
        super().__init__()
        self._things = [thing]
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self) -> Any:
        return self._things[0]


PLACES: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "list": lambda thing: lambda things=[1, thing]: things[1],
    "dict": lambda thing: lambda things={"some": thing}: things["some"],
    "tuple": lambda thing: lambda things=(thing,): things[0],
    "attribute": lambda thing: functools.partial(lambda bag: bag.thing, Bag(thing)),
    "attribute of an attribute": lambda thing: functools.partial(
        lambda bag: bag.thing.thing, Bag(Bag(thing))
    ),
    "list of objects": lambda thing: functools.partial(lambda bags: bags[0].thing, [Bag(thing)]),
    "namespace": lambda thing: functools.partial(lambda bag: bag.thing, SimpleNamespace(thing=thing)),
    "private list of a module": Hidden,
    "cached helper": lambda thing: functools.cache(lambda: thing),
    "partial": lambda thing: functools.partial(lambda one: one, thing),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["generator", "module"])
def test_gradients_hold_wherever_a_step_has_what_it_draws_from_or_counts_in(place: str, kind: str) -> None:
    """Containers, objects and helpers lead to random streams and to undeclared modules with statistics"""
    norms = []

    def make() -> LoopCase:
        cell = nn.GRUCell(SIZE, SIZE).double()
        norm, generator = nn.BatchNorm1d(SIZE, affine=False).double(), torch.Generator().manual_seed(3)
        norms.append(norm)
        thing = PLACES[place](generator if kind == "generator" else norm)

        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            if kind == "generator":
                factor = torch.rand(state.shape, generator=thing(), dtype=torch.float64)
            else:
                factor = thing()(x) + thing().running_mean
            state = cell(x, state * factor)
            return state, state

        return LoopCase(step, states(), sequence(), nn.ModuleList([cell]))

    expected, found = both(make)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if kind == "module":
        assert norms[1].num_batches_tracked == STEPS


def test_a_teacher_that_trains_elsewhere_need_not_be_declared() -> None:
    """A step asks it without gradients: its statistics count once a step, and its dropout is as it was"""
    teachers = []

    def make() -> LoopCase:
        cell = nn.GRUCell(SIZE, SIZE).double()
        teacher = nn.Sequential(nn.Linear(SIZE, SIZE), nn.BatchNorm1d(SIZE), nn.Dropout(0.3)).double()
        teachers.append(teacher)

        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                target = teacher(x)
            state = cell(x, state)
            return state, state * target

        return LoopCase(step, states(), sequence(), cell)

    expected, found = both(make)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert teachers[1][1].num_batches_tracked == STEPS
    torch.testing.assert_close(teachers[1][1].running_var, teachers[0][1].running_var, rtol=0, atol=0)


def test_long_private_lists_cost_little() -> None:
    """A replay buffer in an attribute is looked at to a certain length only"""

    class Trainer:
        def __init__(self, length: int) -> None:
            self._buffer = [Bag(Bag(torch.ones(1))) for _ in range(length)]

        def step(self, state: Tensor, x: Tensor) -> Any:
            return state + x * self._buffer[0].thing.thing, None

    long = Trainer(20 * MOST_BESIDE)
    assert Seen.by((long.step,), ()).values == Seen.by((long.step,), ()).values
    assert len(Seen.by((long.step,), ()).values) == len(Seen.by((Trainer(1).step,), ()).values)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda w: functools.partial(lambda other, state, x: (state * other + x, None), w), "argument 0 of"),
        (lambda w: lambda state, x, scale=w: (state * scale + x, None), "'scale'"),
        (lambda w: lambda state, x: (state * BY_NAME["w"] + x, None), r"BY_NAME\['w'\]"),
        (
            lambda w: (lambda bag: lambda state, x: (state * bag.thing.thing + x, None))(Bag(Bag(w))),
            "thing.thing",
        ),
        (lambda w: lambda state, x: (helped(state) + x, None), r"BY_NAME\['w'\]"),
    ],
    ids=["partial", "default", "dict", "object", "helper"],
)
def test_an_undeclared_tensor_is_named_wherever_it_is(
    make: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    monkeypatch.setitem(BY_NAME, "w", weight)
    with pytest.raises(CaptureError, match=rf"captured .*{name}.* of shape \[1\]"):
        unroll(make(weight), states(), sequence(), plan=PLAN)


BY_NAME: dict[str, Tensor] = {}


def helped(x: Tensor) -> Tensor:
    return x * BY_NAME["w"]


SOME = nn.Dropout(0.1)


def helper(x: Tensor) -> Tensor:
    return SOME(x)


class Stepper:
    """An object with a step of its own, and with a module that it does not name."""

    def __init__(self, dropout: nn.Module) -> None:
        self.dropout = dropout
        self.generator = torch.Generator()
        self.unused = nn.BatchNorm1d(3, affine=False)

    def step(self, state: Tensor, x: Tensor) -> Any:
        return self.dropout(state + x), torch.rand(1, generator=self.generator)

    __call__ = step


def of_closure(module: nn.Module) -> Any:
    return lambda state, x: (module(state + x), None)


def around(inner: Any) -> Any:
    def step(state: Tensor, x: Tensor) -> Any:
        return inner(state, x)

    return step


def by_default(module: nn.Module) -> Any:
    def step(state: Tensor, x: Tensor, part: nn.Module = module) -> Any:
        return part(state + x), None

    return step


def by_partial(module: nn.Module) -> Any:
    return functools.partial(lambda part, state, x: (part(state + x), None), module)


@pytest.mark.parametrize(
    "make",
    [
        of_closure,
        by_default,
        by_partial,
        lambda module: Stepper(module).step,
        Stepper,
        lambda module: around(of_closure(module)),
    ],
    ids=["closure", "default", "partial", "method", "object", "closure of a closure"],
)
def test_modules_are_found_wherever_a_step_has_them(make: Any) -> None:
    dropout = nn.Dropout(0.3)
    step = make(dropout)
    assert Seen.by((step,), ()).modules == (dropout,)
    given = (nn.Sequential(dropout),)
    assert Seen.by((step,), given).modules == given
    trains = nn.Linear(2, 2)
    loop = Loop.of(make(trains), torch.ones(1, 2), torch.ones(3, 1, 2))
    assert loop.modules == ()  # what trains must be declared
    assert loop.seen.modules == (trains,)


def test_globals_of_helpers_and_generators_of_objects_are_found() -> None:
    assert SOME in Seen.by((lambda state, x: (helper(state + x), None),), ()).modules
    stepper = Stepper(nn.Identity())
    assert Seen.by((stepper.step,), ()).generators == (stepper.generator,)
    module = nn.Identity()
    module.stream = torch.Generator()  # type: ignore[assignment]
    assert Seen.by((lambda state, x: (state, x),), (module,)).generators == (module.stream,)


class Attributes(dict):
    """A dictionary by attributes, as research code likes it: any name may raise KeyError."""

    __getattr__ = dict.__getitem__


def test_objects_of_any_kind_may_be_seen() -> None:
    """A dictionary by attributes, and numpy's arrays in the state"""
    options = Attributes(scale=0.5)

    def step(state: Any, x: Tensor) -> Any:
        hidden, count = state
        hidden = torch.tanh(hidden * options.scale + x)
        return (hidden, count + 1), hidden

    state = (states(), np.zeros(3))
    outputs, (_, count) = unroll(step, state, sequence(), plan=PLAN)
    outputs.sum().backward()
    assert (count == STEPS).all()


class Memoising:
    """As an object of a database library: asked for what is not set, its lines fail."""

    __slots__ = ("made", "module")

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        raise TypeError(name)


def test_lines_of_objects_are_not_run_by_looking_at_them() -> None:
    holder = Memoising(SOME)
    seen = Seen.by((lambda state, x: (holder.module(state) + x, holder.made),), ())
    assert seen.modules == (SOME,)


def test_what_pytest_writes_into_lines_leads_nowhere() -> None:
    """Through its own objects to all that there is in the process"""

    def step(state: Tensor, x: Tensor) -> Any:
        assert x.shape == state.shape
        return state + x, None

    assert "@pytest_ar" in step.__code__.co_names
    assert "@pytest_ar" not in names_read(step.__code__)


def test_an_output_that_is_no_number_draws_nothing() -> None:
    """A metric without a value yet: NaN is not NaN, but no random number either"""
    cell, calls = nn.GRUCell(SIZE, SIZE).double(), [0]

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        state = cell(x, state)
        return state, (state, state[:1].detach() * float("nan"))

    assert not Loop.of(step, states(), sequence(), module=cell).needs().draws_random_numbers

    def counting(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        calls[0] += 1
        state = cell(x, state)
        return state, state * calls[0]

    with pytest.raises(ReplayError, match="part of its state"):
        Loop.of(counting, states(), sequence(), module=cell).needs()


class Forking(nn.Module):
    """A module that draws in a fork of the stream."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            return x * torch.rand_like(x)


def test_other_seeds_are_tried_only_where_a_fork_is_named() -> None:
    """Other threads would see them: in the step, in a helper, in the forward pass of a module"""
    forking = Forking()

    def fork(x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            return x * torch.rand_like(x)

    def names(step: Any, *modules: nn.Module) -> frozenset[str]:
        return Seen.by((step,), modules).names

    assert "fork_rng" in names(lambda state, x: (fork(state + x), None))
    assert "fork_rng" in names(lambda state, x: (forking(state + x), None), nn.Sequential(forking))
    assert "fork_rng" not in names(lambda state, x: (torch.tanh(state + x), None), nn.GRUCell(2, 2))
    loop = Loop.of(lambda state, x: (forking(state + x), None), states(), sequence(), module=forking)
    assert loop.needs().draws_random_numbers


def test_a_module_that_no_line_names_is_nobodys_business() -> None:
    """It may change between the passes, and its buffers are not copied"""
    stepper = Stepper(nn.Identity())
    assert stepper.unused not in Seen.by((stepper.step,), ()).modules
    _, state = unroll(stepper.step, states(), sequence(), reduce="last", plan=PLAN)
    stepper.unused.running_mean.add_(1)
    state.sum().backward()
